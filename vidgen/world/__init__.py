"""The procedural world: a tiny 3-D place that is rendered, described and measured by this package.

`scene.sample_scene(seed)` draws a scene, `render.render` films it, `captions.caption` says what is
in it, `truth.truth` knows where everything is, `sound.sound` lets it be heard, and
`clips.clip_record` puts all of that into one record. Imports nothing of vidgen but errors and,
in `clips`, io.record.
"""
