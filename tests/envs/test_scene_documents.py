"""Scenes as they are written: what is wrong is said in one sentence with its line, what is right is built and moves."""

from __future__ import annotations

import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.scenes.document import SceneError, library, parse, read
from envs.scenes.playroom import PlayroomVectorEnv
from envs.scenes.scene import Scene, load

BOX = "{type: box, size: [0.04, 0.04, 0.04]}"


def complaint(text: str, folder: Path | None = None) -> str:
    """The sentence with which a scene is refused."""
    with pytest.raises(SceneError) as found:
        load(parse(text, "room.yaml", folder))
    assert isinstance(found.value, ValueError)
    return str(found.value)


def build(text: str, folder: Path | None = None) -> Scene:
    return load(parse(text, "room.yaml", folder))


# -- what is wrong -------------------------------------------------------------------------------------------------

BAD = {  # what is wrong: (scene, line, part of the sentence)
    "no YAML": ("objects:\n  red: [1, 2\n", 3, "this is not YAML"),
    "a tab": ("objects:\n\tred: 1\n", 2, "this is not YAML"),
    "a tag there is not": ("name: room\narea: !box [1]\ntimestep: !secret 3", 3, "'3' can't be read"),
    "a date that never was": ("places:\n  a: 2020-13-45\n", 2, "'2020-13-45' can't be read"),
    "a name twice": (f"objects:\n  red: {BOX}\n  red: {BOX}\n", 3, "'red' is there twice"),
    "a key twice": ("objects:\n  red: {type: box,\n    mass: 1, mass: 2}\n", 3, "'mass' is there twice"),
    "a section twice": ("objects: {}\nplaces: {}\nobjects: {}\n", 3, "'objects' is there twice"),
    "an unknown section": ("name: x\nfurniture: {}\n", 2, "unknown key 'furniture'; valid: name, about, objects"),
    "a section that is a list": ("name: x\nobjects:\n  - red\n", 2, "objects must be a mapping from names to parts"),
    "places that are a list": ("places: [[0.1, 0.2]]\n", 1, "places must be a mapping from names to [x, y]"),
    "tasks that are a list": ("name: x\ntasks: [open(drawer)]\n", 2, "tasks must be a mapping from names to goals"),
    "an unknown key": (
        "objects:\n  red:\n    type: box\n    weight: 3\n", 4, "unknown key 'weight' of a box; valid: colour, friction"
    ),
    "a radius of a box": ("objects:\n  red: {type: box, radius: 0.02}\n", 2, "unknown key 'radius' of a box"),
    "an unknown type": ("objects:\n  red:\n    type: cone\n", 3, "unknown type 'cone'; valid: box, ball"),
    "a fixture as object": ("objects:\n  red: {type: drawer}\n", 2, "unknown type 'drawer'; valid: box"),
    "an object as fixture": (f"fixtures:\n  red: {BOX}\n", 2, "unknown type 'box'; valid: drawer, door, shelf"),
    "no type": ("objects:\n  blue:\n    size: [0.04, 0.04, 0.04]\n", 2, "blue has no type"),
    "a type that is none": ("objects:\n  red: {type: [box]}\n", 2, "red must be a mapping with a type"),
    "a part that is none": ("objects:\n  red: box\n", 2, "red must be a mapping with a type"),
    "a negative mass": (f"objects:\n  red: {BOX[:-1]}, mass: -1}}\n", 2, "mass = -1 must be a finite number greater"),
    "no mass": (f"objects:\n  red: {BOX[:-1]}, mass: 0}}\n", 2, "mass = 0 must be a finite number greater than 0"),
    "a mass in words": (f"objects:\n  red: {BOX[:-1]}, mass: heavy}}\n", 2, "mass = 'heavy' must be a finite number"),
    "a mass of yes": (f"objects:\n  red: {BOX[:-1]}, mass: yes}}\n", 2, "mass = True must be a finite number"),
    "an infinite mass": (f"objects:\n  red: {BOX[:-1]}, mass: .inf}}\n", 2, "mass = inf must be a finite number"),
    "a friction below zero": (f"objects:\n  red: {BOX[:-1]}, friction: -0.1}}\n", 2, "a finite number at least 0"),
    "no size": ("objects:\n  red:\n    type: box\n", 2, "size is missing; 3 numbers are needed"),
    "a flat size": ("objects:\n  red:\n    type: box\n    size: [0.1, 0, 0.1]\n", 4, "3 finite numbers greater than 0"),
    "two sizes": ("objects:\n  red:\n    type: box\n    size: [0.1, 0.1]\n", 4, "size = [0.1, 0.1] must be 3 finite"),
    "one size": ("objects:\n  red:\n    type: box\n    size: 0.1\n", 4, "size = 0.1 must be 3 finite numbers"),
    "sizes of yes": ("objects:\n  red: {type: box, size: [yes, 1, 1]}\n", 2, "must be 3 finite numbers"),
    "no radius": ("objects:\n  red: {type: ball}\n", 2, "radius = nothing must be a finite number greater than 0"),
    "a radius of nan": ("objects:\n  red: {type: ball, radius: .nan}\n", 2, "radius = nan must be a finite number"),
    "a position of nan": ("fixtures:\n  a: {type: shelf, pos: [.nan, 0]}\n", 2, "pos = [nan, 0] must be 2 finite"),
    "no position": ("fixtures:\n  a: {type: shelf}\n", 2, "pos is missing; 2 numbers are needed"),
    "a colour too many": (f"objects:\n  red: {BOX[:-1]}, colour: [1, 0, 0, 1]}}\n", 2, "colour = [1, 0, 0, 1] must"),
    "a door that opens up": ("fixtures:\n  a: {type: door, pos: [0.6, 0], opens: up}\n", 2, "must be left or right"),
    "a camera that looks nowhere": ("cameras:\n  eye:\n    pos: [1, 1, 1]\n    target: [1, 1, 1]\n", 4, "look some"),
    "a camera with a lens": ("cameras:\n  eye: {pos: [1, 1, 1], lens: 3}\n", 2, "unknown key 'lens' of a camera"),
    "two words": (f"objects:\n  red block: {BOX}\n", 2, "names must be single words"),
    "a number first": (f"objects:\n  1st: {BOX}\n", 2, "names must be single words"),
    "anywhere": (f"objects:\n  anywhere: {BOX}\n", 2, "names must be single words"),
    "a place in two words": ("places:\n  far left: [0.4, 0.2]\n", 2, "names must be single words"),
    "a place called anywhere": ("places:\n  anywhere: [0.4, 0.2]\n", 2, "names must be single words"),
    "a place as an object": (f"places:\n  red: [0.4, 0.2]\nobjects:\n  red: {BOX}\n", 4, "there is a red already"),
    "an object as a fixture": (
        f"objects:\n  red: {BOX}\nfixtures:\n  red: {{type: shelf, pos: [0.6, 0.1]}}\n", 4, "there is a red already"
    ),
    "the arm's name": (f"objects:\n  hand: {BOX}\n", 2, "this is the name of a part of the arm"),
    "the table's name": (f"objects:\n  table: {BOX}\n", 2, "this is the name of a part of the arm or the table"),
    "called the same": (
        f"objects:\n  red: {BOX}\n  blue:\n    type: box\n    size: [0.04, 0.04, 0.04]\n    says: Red\n", 6, "differ"
    ),
    "called and": (f"objects:\n  red: {BOX[:-1]}, says: salt and pepper}}\n", 2, "have no comma, 'and' or 'then'"),
    "called nothing": (f"objects:\n  red: {BOX[:-1]}, says: ''}}\n", 2, "says = '' must be a text"),
    "a place with three numbers": ("places:\n  left: [0.4, 0.2, 0.1]\n", 2, "left = [0.4, 0.2, 0.1] must be 2 finite"),
    "an area of three": ("name: x\narea: [0.3, 0.1, 0.5]\n", 2, "area = [0.3, 0.1, 0.5] must be 4 finite numbers"),
    "an area upside down": ("area: [0.6, 0.2, 0.3, 0.0]\n", 1, "must be its low corner, then its high one"),
    "a workspace of nothing": ("workspace: [0.3, 0, 0, 0.3, 1, 1]\n", 1, "must be its low corner"),
    "no time": ("name: x\ntimestep: 0\n", 2, "timestep = 0 must be a finite number greater than 0"),
    "a task that is none": ("tasks:\n  go:\n    open: drawer\n", 2, "task 'go' must be a goal such as open(drawer)"),
    "a task without its drawer": (
        f"objects:\n  red: {BOX}\ntasks:\n  lift: lifted(red)\n  go: open(drawer)\n", 5, "task go: unknown predicate"
    ),
    "a task of an unknown object": (f"objects:\n  red: {BOX}\ntasks:\n  go: lifted(blue)\n", 4, "'blue' does not fit"),
    "an unknown predicate": (f"objects:\n  red: {BOX}\ntasks:\n  go: fly(red)\n", 4, "there are: touching"),
    "a missing file": ("objects:\n  mug:\n    type: mjcf\n    file: mug.xml\n", 4, "mug.xml is not a model"),
    "no file": ("objects:\n  mug: {type: mjcf}\n", 2, "file = nothing must be a text"),
    "a shelf in a shelf": (
        "fixtures:\n  a: {type: shelf, pos: [0.6, 0.1]}\n  b:\n    type: shelf\n    pos: [0.62, 0.12]\n", 5, "inside a"
    ),
    "a board in a cabinet": (
        "fixtures:\n  a: {type: drawer, pos: [0.5, -0.3]}\n"
        "  b: {type: board, pos: [0.5, -0.3], size: [0.1, 0.1, 0.2]}\n", 3, "inside a; move one of them"
    ),
    "a door in a button": (
        "fixtures:\n  a: {type: button, pos: [0.5, 0.3]}\n  b: {type: door, pos: [0.5, 0.3]}\n", 3, "mm inside a"
    ),
    "a drawer that opens into a board": (
        "fixtures:\n  a: {type: board, pos: [0.5, 0.0], size: [0.1, 0.02, 0.08]}\n"
        "  b: {type: drawer, pos: [0.5, -0.25]}\n", 3, "mm inside a, opened; move one of them"
    ),
    "a drawer that opens to where blocks begin": (
        f"objects:\n  red: {BOX}\nfixtures:\n  a: {{type: drawer, pos: [0.5, -0.27]}}\n",
        4, "inside the area where objects begin, opened; move"
    ),
    "a board where blocks begin": (
        f"objects:\n  red: {BOX}\nfixtures:\n  a: {{type: board, pos: [0.5, 0.1], size: [0.1, 0.1, 0.01], yaw: 20}}\n",
        4, "inside the area where objects begin; move one of them"
    ),
    "a board in the hand": (
        "fixtures:\n  a: {type: board, pos: [0.48, 0], size: [0.1, 0.1, 0.3]}\n", 2, "mm inside the arm"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "part"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_in_one_sentence_with_its_line(text, line, part):
    said = complaint(text)
    assert said.startswith(f"room.yaml line {line}: "), said
    assert part in said
    assert "\n" not in said


def test_the_drawer_moved_into_the_shelf_of_the_playroom_is_refused():
    text = library()["playroom"].read_text(encoding="utf-8")
    number = next(i for i, row in enumerate(text.splitlines(), 1) if row.strip().startswith("shelf:"))
    said = complaint(text.replace("pos: [0.48, -0.37]", "pos: [0.62, 0.05]"))
    assert re.match(rf"room.yaml line {number}: shelf: it stands \d+ mm inside drawer; move one of them", said)


def test_what_only_touches_is_no_overlap():
    build(f"objects:\n  red: {BOX}\nfixtures:\n"
          "  over: {type: board, pos: [0.5, 0.15], size: [0.1, 0.1, 0.01], height: 0.05}\n"
          "  a: {type: board, pos: [0.6, 0.3], size: [0.1, 0.1, 0.1]}\n"
          "  b: {type: board, pos: [0.7, 0.3], size: [0.1, 0.1, 0.1]}\n"
          "  c: {type: board, pos: [0.65, 0.3], size: [0.2, 0.1, 0.02], height: 0.1}\n")  # fmt: skip


@pytest.mark.parametrize("text", ["- red\n- blue\n", "just words", "3"])
def test_what_is_no_mapping_is_told_what_a_scene_is(text):
    assert re.match("room.yaml: a scene is a mapping with the keys name, about, objects", complaint(text))


def test_an_unknown_scene_is_answered_with_the_library():
    with pytest.raises(SceneError, match=r"there is no scene 'kitchen'; give a YAML file, or one of: .*playroom"):
        read("kitchen")
    with pytest.raises(SceneError, match="there is no scene"):
        PlayroomVectorEnv(1, scene="kitchen")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(SceneError, match=r"picture\.yaml is not a text"):
        load(path)


@pytest.mark.parametrize(
    ("mjcf", "part"),
    [
        ("<mujoco><worldbody>", "mug.xml is not a model"),
        ("<mujoco><worldbody><body><geom type='box'/></body></worldbody></mujoco>", "mug.xml is not a model"),
        ("<mujoco/>", "mug.xml has 0 bodies"),
        (
            "<mujoco><worldbody><body><geom size='.1'/></body><body><geom size='.1'/></body></worldbody></mujoco>",
            "mug.xml has 2 bodies; an object is one",
        ),
        (
            "<mujoco><worldbody><body><geom size='.1'/><body><geom size='.1'/></body></body></worldbody></mujoco>",
            "mug.xml has 2 bodies; an object is one",
        ),
    ],
    ids=["unclosed", "without a size", "empty", "two bodies", "a body in a body"],
)
def test_a_broken_model_is_refused_with_the_line_that_names_it(mjcf, part, tmp_path):
    (tmp_path / "mug.xml").write_text(mjcf)
    said = complaint("objects:\n  mug: {type: mjcf,\n    file: mug.xml}\n", tmp_path)
    assert said.startswith("room.yaml line 3: mug: ")
    assert part in said
    assert "\n" not in said


def test_an_area_without_room_for_the_blocks_is_said_at_reset():
    rows = "".join(f"  block{k}: {BOX}\n" for k in range(6))
    env = PlayroomVectorEnv(1, "lifted(block0)", build(f"name: tiny\narea: [0.4, 0, 0.5, 0.1]\nobjects:\n{rows}"))
    with pytest.raises(
        ValueError, match=r"scene 'tiny' has no room for its 6 blocks in its area \[0.4, 0.0, 0.5, 0.1\]"
    ):
        env.reset(seed=0)


@pytest.mark.parametrize("timestep", [0.03, 0.06, 10])
def test_a_timestep_divides_a_control_step(timestep):
    with pytest.raises(SceneError, match=rf"room\.yaml: timestep = {timestep} must divide 0\.05 s, a control step"):
        PlayroomVectorEnv(1, "lifted(red)", build(f"timestep: {timestep}\nobjects:\n  red: {BOX}\n"))


@pytest.mark.parametrize("blocks", [-1, 7])
def test_as_many_blocks_as_there_are(blocks):
    with pytest.raises(SceneError, match=f"blocks = {blocks}: cubes.yaml has 6 objects"):
        load("cubes", blocks)


# -- what is right -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", library())
def test_every_scene_of_the_library_is_built(name):
    scene = load(name)
    assert scene.document.source == f"{name}.yaml"
    assert len(scene.blocks) == len(scene.document.objects)
    model = scene.model
    assert model.nu == 8
    assert [model.joint(j).name for j in range(9)][-2:] == ["finger_left", "finger_right"]  # facts read qpos 7 and 8
    for goal in scene.tasks.values():
        assert scene.vocabulary.parse(goal)


def test_only_the_first_blocks_are_built():
    assert [block.name for block in load("cubes", 2).blocks] == ["red", "blue"]
    assert load("cubes", 0).blocks == ()


def test_an_empty_page_is_a_bare_table():
    scene = build("")
    assert scene.name == "room.yaml"
    assert (scene.blocks, scene.slides, scene.containers, scene.lamps) == ((), (), (), ())


MUG = """<mujoco>
  <compiler angle="degree"/>
  <default><geom rgba="0 0 1 1"/></default>
  <worldbody><body name="mug" pos="1 2 3" euler="90 0 0">
    <freejoint/>
    <geom name="wall" type="cylinder" fromto="0 0 0 0 0 .06" size=".02" density="500"/>
    <geom name="grip" type="box" size=".005 .01 .02" pos=".025 0 .03" density="500"/>
  </body></worldbody></mujoco>"""
HOUSE = """
name: a house
area: [0.36, 0.0, 0.52, 0.22]
timestep: 0.005
objects:
  cube: {type: box, size: [0.04, 0.04, 0.04], mass: 0.1, friction: 0.8, colour: [1, 0, 0], says: red cube}
  marble: {type: ball, radius: 0.02}
  can: {type: cylinder, radius: 0.02, height: 0.08, mass: 0.08}
  mug: {type: mjcf, file: models/mug.xml, mass: 0.07, colour: [0, 1, 0]}
  cup: {type: mjcf, file: models/mug.xml}
fixtures:
  chest: {type: drawer, pos: [0.50, -0.30], yaw: 90, travel: 0.14}
  gate: {type: door, pos: [0.70, 0.25], opens: left, width: 0.12, height: 0.09, travel: 0.10}
  flap: {type: door, pos: [0.30, 0.33], yaw: 90, opens: right}
  rack: {type: shelf, pos: [0.66, 0.06], size: [0.1, 0.2], floor: 0.04, yaw: 10}
  lamp: {type: button, pos: [0.5, 0.40], colour: [0.1, 0.2, 0.9]}
  wall: {type: board, pos: [0.2, 0.45], size: [0.02, 0.1, 0.2], height: 0.05, yaw: 30}
cameras:
  front: {pos: [1.4, 0.5, 0.8], target: [0.4, 0, 0]}
  above: {pos: [0.4, 0, 2], target: [0.4, 0, 0], fovy: 60}
places:
  left: [0.42, 0.2]
tasks:
  tidy: inside(mug, chest) & closed(chest)
  carry: placed(can, left)
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("house")
    (folder / "models").mkdir()
    (folder / "models" / "mug.xml").write_text(MUG)
    path = folder / "house.yaml"
    path.write_text(HOUSE)
    return load(path)


def test_a_house_with_every_kind_of_part_is_built(house):
    model = house.model
    assert house.name == "a house"
    assert model.opt.timestep == 0.005
    assert [block.name for block in house.blocks] == ["cube", "marble", "can", "mug", "cup"]
    assert [block.shape for block in house.blocks] == [0, 1, 2, 0, 0]
    assert [(slide.name, slide.kind) for slide in house.slides] == [
        ("chest", "drawer"), ("gate", "door"), ("flap", "door"),
    ]  # fmt: skip
    chest, gate, flap = house.slides
    assert np.allclose(chest.axis, (-1, 0, 0))  # y of the chest, turned by 90 degrees
    assert np.allclose(chest.handle, (0.50 - 0.142, -0.30, 0.047))
    assert np.allclose(gate.axis, (0, 1, 0))
    assert np.allclose(flap.axis, (1, 0, 0))
    assert [(box.name, box.slide) for box in house.containers] == [("chest", 0), ("rack", -1)]
    assert np.allclose(house.lamps[0].top, (0.5, 0.40, 0.062))
    assert {model.camera(c).name for c in range(model.ncam)} == {"front", "above", "top"}
    assert np.allclose(model.camera("above").fovy, 60)
    assert model.body("cube").mass == pytest.approx(0.1)
    assert np.allclose(model.geom("cube").rgba, (1, 0, 0, 1))
    assert model.geom("cube").friction[0] == 0.8
    assert house.vocabulary.understand("stack the red cube on the can") == "on(cube, can)"


def test_somebodys_model_gets_the_mass_and_colour_given_and_its_frame_in_its_middle(house):
    model = house.model
    mug, cup = model.body("mug"), model.body("cup")
    assert mug.mass == pytest.approx(0.07)
    assert cup.mass == pytest.approx(500 * (np.pi * 0.02**2 * 0.06 + 0.01 * 0.02 * 0.04))
    assert np.allclose(mug.inertia / 0.07, cup.inertia / cup.mass)
    assert np.allclose(model.geom_rgba[mug.geomadr[0]], (0, 1, 0, 1))
    assert np.allclose(model.geom_rgba[cup.geomadr[0]], (0, 0, 1, 1))
    assert np.allclose(house.blocks[3].half, (0.025, 0.02, 0.03))
    data = mujoco.MjData(model)
    at = model.joint("mug").qposadr[0]
    data.qpos[at : at + 7] = 0, 0, 1, 1, 0, 0, 0
    mujoco.mj_kinematics(model, data)
    walls, grip = data.geom_xpos[mug.geomadr[0] : mug.geomadr[0] + 2]
    assert np.allclose(walls, (-0.005, 0, 1))
    assert np.allclose(grip, (0.02, 0, 1))


def test_the_house_is_lived_in(house):
    env = PlayroomVectorEnv(4, scene=house, threads=1, max_steps=50)
    assert env.substeps == 10
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    bottoms = [env.columns.index(f"{block.name}_bottom") for block in house.blocks]
    for _ in range(30):
        observation, _, terminated, _, info = env.step(np.zeros((4, 5)))
        assert not (terminated.any() or info["bad_physics"].any() or info["lost"].any())
    assert env.observation_space.contains(observation)
    speeds = [env.columns.index(f"{name}_{axis}") for name in ("cube", "can", "mug", "cup") for axis in ("vx", "vz")]
    assert np.abs(env.facts[:, speeds]).max() < 0.02
    low = env.facts[:, bottoms]
    assert (np.minimum(np.abs(low), np.minimum(np.abs(low - 0.016), np.abs(low - 0.04))) < 0.003).all()  # on a floor
    env.set_goals(["press the button of the lamp", "open(gate)", "tidy"])
    env.reset()
    assert {env.goal_text(slot) for slot in range(4)} == {
        "toggled(lamp)",
        "open(gate)",
        "inside(mug, chest) & closed(chest)",
    }
    env.close()
