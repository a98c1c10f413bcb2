"""Pictures: against closed forms, against themselves at other sizes, alone and in batches."""

import math
from dataclasses import replace

import pytest
import torch
from einops import reduce

from vidgen.errors import UsageError
from vidgen.world.parts import Camera, CameraMove, Event, Object, Scene
from vidgen.world.render import geometry, render
from vidgen.world.scene import sample_scene
from vidgen.world.vocabulary import FULL

TIMES = [0.0, 0.5, 1.0, 1.5, 2.0]


def stage(shape="ball", *, size=1.0, distance=3.0, heading=0.0, height=1.0, pitch=0.0):
    """One white body straight ahead (towards −z) of a camera at the origin."""
    thing = Object(shape, "white", size, 0.0, -distance, heading, (Event("stays still", 0, 2),))
    camera = Camera((0.0, height, 0.0), 0.0, pitch, 1.0, (CameraMove("still", 0, 2),))
    return Scene(0, "full", "grey", (thing,), camera, (0.0, 1.0, 0.0))


def rays(height, width, focal=1.0):
    """Directions through pixel centers, level camera at yaw 0: x right, y up, and −1 ahead."""
    x = ((torch.arange(width) + 0.5) / width - 0.5) / focal
    y = -((torch.arange(height) + 0.5) / height - 0.5) * height / width / focal
    return torch.meshgrid(y.double(), x.double(), indexing="ij")


def test_depth_of_a_ball_and_the_ground_is_the_closed_form():
    height, width, radius, distance, eye = 45, 72, 0.5, 3.0, 1.1
    z = render([stage(height=eye)], times=[0.0], height=height, width=width, depth=True).depth
    y, x = rays(height, width)
    # |z·(x, y, −1) + (0, eye − r, d)|² = r², ground where eye + z·y = 0.
    a, b = x * x + y * y + 1, (eye - radius) * y - distance
    c = (eye - radius) ** 2 + distance**2 - radius**2
    disc = b * b - a * c
    ball = torch.where(disc > 0, (-b - disc.clamp(min=0).sqrt()) / a, math.inf)
    ground = torch.where(y < 0, -eye / y, math.inf)
    expected = torch.minimum(ball, ground).float()
    assert (ball < ground).sum() > 300
    sure = disc.abs() > 1e-4  # not the very rim
    torch.testing.assert_close(z[0, 0][sure], expected[sure], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "front", "half_width"),
    [("cube", 0.42, 0.42), ("cylinder", 0.38, 0.38), ("cone", 0.23, 0.23), ("ring", None, 0.49)],
)
def test_depth_at_the_middle_and_width_of_other_shapes(shape, front, half_width):
    """Seen level, at the height of the center, along the mark's axis; a cone's radius there is
    half of its foot's."""
    rest = {"cube": 0.42, "cylinder": 0.5, "cone": 0.5, "ring": 0.49}[shape]
    z, owner = geometry(stage(shape, height=rest), [0.0], 101, 401)
    row_z, row = z[0, 50], owner[0, 50]
    if front is None:  # through the hole
        assert row[200] != 1
        beside = int(200 + 401 * 0.36 / 3)  # the middle of the tube
        assert row_z[beside] == pytest.approx(3 - 0.13, abs=2e-3)
    else:
        assert row_z[200] == pytest.approx(3 - front, abs=1e-4)
    columns = (row == 1).nonzero()
    # A silhouette's edge is where a ray touches: between the widest place and the front face.
    reach = (columns.max() - columns.min() + 1) / 401 / 2
    assert half_width / 3.0 * 0.98 < reach < half_width / (3 - (front or 0)) * 1.02


def test_normals_point_out_along_the_depth_gradient():
    """Shading uses normals, depth does not: so compare them, for every shape, from pictures of
    the depth's own gradient."""
    from vidgen.world import shapes

    gen = torch.Generator().manual_seed(0)
    for name, intersect in shapes.INTERSECT.items():
        o = torch.randn(3, 4000, generator=gen, dtype=torch.float64)
        o = 3 * o / o.norm(dim=0)
        d = 0.4 * (torch.rand(3, 4000, generator=gen, dtype=torch.float64) - 0.5) * 2 - o
        t, normal = intersect(tuple(o), tuple(d))
        hit = t < math.inf
        assert hit.sum() > 400, name
        n = torch.stack(normal)[:, hit]
        torch.testing.assert_close(
            n.norm(dim=0), torch.ones(n.shape[1]).double(), atol=1e-6, rtol=0
        )
        assert ((n * d[:, hit]).sum(dim=0) < 1e-6).all(), name  # towards where the ray came from
        # The surface is flat over a thousandth: neighbors' hits are across the normal.
        step = 1e-4 * torch.randn(3, 4000, generator=gen, dtype=torch.float64)
        t2, normal2 = intersect(tuple(o + step), tuple(d))
        both = hit & (t2 < math.inf)
        same = both & ((torch.stack(normal) - torch.stack(normal2)).norm(dim=0) < 0.01)
        along = (o + step + t2 * d - o - t * d)[:, same]
        slope = (along * torch.stack(normal)[:, same]).sum(dim=0).abs() / along.norm(dim=0)
        assert slope.median() < (0.05 if name == "ring" else 2e-3), name
        assert same.sum() > 0.9 * both.sum(), name


def test_small_pictures_are_area_averages_of_large_ones():
    scenes = [sample_scene(seed, level=level) for level in ("basic", "full") for seed in range(6)]
    small = render(scenes, times=[0.0, 2.0]).frames.float()
    for k in (2, 4):
        large = render(scenes, times=[0.0, 2.0], height=40 * k, width=64 * k).frames.float()
        mean = reduce(large, "b t (h i) (w j) c -> b t h w c", "mean", i=k, j=k)
        error = mean - small
        assert error.abs().mean() < 2.0  # of 255; edges cut pixels at finer steps
        assert error.mean(dim=(1, 2, 3, 4)).abs().max() < 0.3
        far = (error.abs() > 40).float().mean()
        assert far < 0.002


@pytest.mark.parametrize("level", ["basic", "full"])
def test_a_batch_equals_its_singles(level):
    scenes = [sample_scene(seed, level=level) for seed in (7, 8, 9, 10)]
    batch = render(scenes, times=TIMES, depth=True)
    for i, scene in enumerate(scenes):
        single = render([scene], times=TIMES, depth=True)
        assert torch.equal(batch.frames[i], single.frames[0])
        assert torch.equal(batch.depth[i], single.depth[0])


def test_frames_do_not_depend_on_their_neighbors_or_chunks(monkeypatch):
    scene = sample_scene(5, level="full")
    whole = render([scene], num_frames=17, fps=8)
    assert torch.equal(whole.frames[:, ::4], render([scene], times=TIMES).frames)
    monkeypatch.setattr("vidgen.world.render.RAYS_PER_CHUNK", {"cpu": 1})
    assert torch.equal(whole.frames[:, :3], render([scene], num_frames=3).frames)


def test_the_basic_world_looks_as_it_did():
    """Means and spreads of some pictures: the look is frozen, models are trained on it."""
    frames = render([sample_scene(seed) for seed in range(24)], times=[0.0, 1.0]).frames.float()
    found = [float(x) for x in (*frames.mean(dim=(0, 1, 2, 3)), frames.std())]
    assert found == pytest.approx([146.03, 160.69, 158.88, 49.27], abs=0.03)
    assert frames[0, 0, -1, 0].tolist() == pytest.approx([80, 121, 72], abs=1)


def test_a_shadow_lies_on_the_side_away_from_the_sun():
    scene = replace(stage(height=1.6, pitch=0.3), sun=(0.6, 0.6, 0.53))  # sun to the right, behind
    without = replace(scene, objects=(replace(scene.objects[0], x=50.0),))
    with_, empty = render([scene, without], times=[0.0], height=80, width=128).frames.float()[:, 0]
    _, owner = geometry(scene, [0.0], 80, 128)
    darker = (empty - with_).mean(dim=-1) > 20
    darker &= owner[0] == 0
    columns = darker.nonzero()[:, 1].float()
    assert len(columns) > 60
    assert columns.mean() < 64 - 5


def test_every_full_scene_renders():
    scenes = [
        sample_scene(seed, level="full", factors={"camera": name, "motion": act, "shape": shape})
        for seed, (name, act, shape) in enumerate(
            zip(
                FULL["camera"],
                (FULL["motion"] * 2)[: len(FULL["camera"])],
                (FULL["shape"] * 3)[: len(FULL["camera"])],
                strict=True,
            )
        )
    ]
    out = render(scenes, times=[0.0, 1.0, 2.0], depth=True)
    assert out.frames.shape == (len(scenes), 3, 40, 64, 3) and out.frames.dtype == torch.uint8
    assert out.depth.shape == (len(scenes), 3, 40, 64) and not out.depth.isnan().any()
    assert (out.depth > 0.3).all()
    assert (out.frames.float().std(dim=(2, 3, 4)) > 10).all()


def test_a_camera_among_the_objects_does_no_harm():
    scene = stage(distance=0.2, height=0.5)
    beside = replace(scene, objects=(replace(scene.objects[0], x=0.3, z=0.4),))
    out = render([scene, beside], times=[0.0], depth=True)
    assert not out.depth.isnan().any()


def test_nothing_to_render_is_refused():
    for scenes, options in (
        ([], {}),
        ([stage()], {"times": []}),
        ([stage()], {"height": 0}),
        ([stage()], {"antialias": 0}),
    ):
        with pytest.raises(UsageError):
            render(scenes, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_shows_what_the_cpu_shows():
    scenes = [sample_scene(seed, level="full") for seed in range(16)]
    cpu = render(scenes, times=TIMES, depth=True)
    gpu = render(scenes, times=TIMES, depth=True, device="cuda")
    assert gpu.frames.is_cuda
    apart = (cpu.frames.float() - gpu.frames.cpu().float()).abs()
    assert apart.mean() < 0.05 and (apart > 2).float().mean() < 1e-3
    near = cpu.depth.isfinite() & gpu.depth.cpu().isfinite()
    close = (cpu.depth - gpu.depth.cpu()).abs()[near] < 1e-2 * cpu.depth[near]
    assert close.float().mean() > 0.999
