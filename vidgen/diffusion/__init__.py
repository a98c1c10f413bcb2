"""The mathematics of diffusion, with no idea of what a video is. Imports torch only.

- level: z = alpha x0 + sigma eps, one noise level
- prediction: what a network's output means; network + prediction = denoiser
- schedules: number of steps -> levels
- solvers: denoiser, noise, levels -> steps
- guidance: denoiser -> denoiser
- cond: what a denoiser is told
- noise: one generator for each sample
- losses: what training minimizes, and at which levels
"""
