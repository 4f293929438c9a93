"""A user's own robot that is not right: one sentence, with the line of the page that asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.scenes.document import SceneError, parse
from envs.scenes.scene import load


def complaint(page: str, folder: Path) -> str:
    """The sentence with which a scene is refused."""
    with pytest.raises(SceneError) as found:
        load(parse(page, "desk.yaml", folder))
    assert "\n" not in str(found.value)
    return str(found.value)


LINES = """robot:
  file: arm.xml
  tool: grasp
  home: [0, 0.643, 1.855, 0, 0.643, 0]
  fingers: [left, right]
  gripper: grip
"""
BAD_PAGES = {  # what is wrong: (line, what is replaced, by what, part of the sentence)
    "no such robot": (1, LINES, "robot: panda\n", "robot = 'panda' must be builtin, or a mapping"),
    "a list": (1, LINES, "robot: [arm.xml]\n", "must be builtin, or a mapping"),
    "an unknown key": (
        2,
        "  file:",
        "  speed: 3\n  file:",
        "unknown key 'speed' of a robot; valid: file, fingers, gra",
    ),
    "no file": (1, "  file: arm.xml\n", "", "file = nothing must be a text"),
    "a missing file": (2, "arm.xml", "leg.xml", "there is no file leg.xml"),
    "no tool": (1, "  tool: grasp\n", "", "tool = nothing must be a text"),
    "an unknown tool": (3, "grasp", "hook", "'hook' is no site or body of arm.xml; sites: grasp; bodies: foot, waist"),
    "a tool at the base": (3, "grasp", "foot", "there are no joints between the base and the tool 'foot'"),
    "a tool on a finger": (3, "grasp", "left", "joint 'left' between the base and the tool is of type slide; hinges"),
    "no home": (1, "  home: [0, 0.643, 1.855, 0, 0.643, 0]\n", "", "home is missing; 6 numbers are needed"),
    "a short home": (4, "[0, 0.643,", "[0.643,", "must be 6 finite numbers"),
    "a home of nan": (4, "[0,", "[.nan,", "must be 6 finite numbers"),
    "a home out of range": (4, "1.855", "2.9", "home: 2.9 rad of joint 'elbow' is not in -2.8 to 2.8"),
    "a home under the table": (4, "0.643, 1.855", "2.0, 1.0", "mm under the table"),
    "one finger": (5, "[left, right]", "left", "fingers = 'left' must be two bodies"),
    "an unknown finger": (5, "right]", "thumb]", "there is no body 'thumb' for a finger; bodies: foot, waist"),
    "fingers that do not move": (5, "[left, right]", "[flange, foot]", "finger 'flange' is a link of the arm"),
    "a gripper without fingers": (5, "  fingers: [left, right]\n", "", "a gripper needs fingers"),
    "an unknown gripper": (6, "grip\n", "claw\n", "there is no actuator 'claw'; there are: grip"),
    "a gripper of numbers": (6, "grip\n", "[1, 2]\n", "gripper = [1, 2] must be a name or a list of names"),
    "a gripper of the arm": (6, "grip\n", "wrist servo\n", "there is no actuator 'wrist servo'; there are: grip"),
    "a gripper left out": (
        2,
        "  gripper: grip\n",
        "",
        "nothing commands the actuators grip; name those of",
    ),
    "a kp of zero": (7, LINES, LINES + "  kp: 0\n", "kp = 0 must be a finite number greater than 0"),
    "two kps": (7, LINES, LINES + "  kp: [1, 2]\n", "kp = [1, 2] must be 6 finite numbers"),
    "kd alone": (7, LINES, LINES + "  kd: 10\n", "kd is of the servos that kp asks for"),
    "a flat offset": (7, LINES, LINES + "  offset: [0]\n", "offset = [0] must be 3 finite numbers"),
    "a flat pos": (7, LINES, LINES + "  pos: [0, 0]\n", "pos = [0, 0] must be 3 finite numbers"),
}


@pytest.mark.parametrize(("line", "old", "new", "part"), BAD_PAGES.values(), ids=BAD_PAGES)
def test_a_wrong_page_is_refused_in_one_sentence_with_its_line(line, old, new, part, tmp_path, mjcf):
    (tmp_path / "arm.xml").write_text(mjcf(), encoding="utf-8")
    page = LINES.replace(old, new, 1)
    assert page != LINES
    said = complaint(page, tmp_path)
    assert said.startswith(f"desk.yaml line {line}: "), said
    assert part in said, said


BAD_FILES = {  # what is wrong: (line, what is replaced in the file, by what, part of the sentence)
    "not XML": (2, "<mujoco>", "<mujoco", "arm.xml is not a model"),
    "another root": (2, "mujoco", "html", "arm.xml is not a model"),
    "no mass": (2, "mass='0.6'", "mass='0'", "arm.xml is not a model: Error: mass and inertia of moving bodies"),
    "a floating base": (3, "<body name='foot'>", "<body name='foot'><freejoint/>", "is of type free; hinges are"),
    "a rail": (3, "axis='0 0 1' range='-2.9", "axis='0 0 1' type='slide' range='-2.9", "'waist' between the base and"),
    "eight joints": (
        3, "<geom type='capsule'", "<joint axis='1 0 0'/><joint axis='0 1 0'/><geom type='capsule'", "are 8 joints"
    ),
    "a joint on the way": (
        2, "<body name='shoulder'", "<body><joint name='tail'/><geom size='.01'/></body><body name='shoulder'",
        "joint 'tail' is neither between its base and its tool nor comes after them",
    ),
    "a motor": (2, "<position name='elbow servo' joint='elbow' kp='800' kv='66.66666666666667'/>",
                "<motor name='strong' joint='elbow'/>",
                "joint 'elbow' is driven by 'strong', not by one position servo; give kp, and it gets one"),
    "two servos": (2, "<position name='elbow servo'", "<position joint='elbow' kp='3'/><position name='elbow servo'",
                   "not by one position servo"),
    "a finger of air": (5, "<geom type='box' size='.01", "<geom contype='0' conaffinity='0' type='box' size='.01",
                        "finger 'left' has no geoms that collide"),
    "a finger without range": (5, "range='0 .035'", "", "joint 'left' of finger 'left' must be a slide or hinge"),
    "fingers that stay": (5, "range='0 .035'", "range='0 .0001'", "the fingers open by 0.2 mm only"),
    "a grip that moves nothing": (6, "<position name='grip' joint='left' kp='2000'",
                                  "<general name='grip' site='grasp' gainprm='0'", "moves none"),
    "a grip without range": (6, "ctrlrange='-.005 .035' ", "", "actuator 'grip' of the gripper has no ctrlrange"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "old", "new", "part"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_wrong_file_is_refused_with_the_line_that_asks_for_it(line, old, new, part, tmp_path, mjcf):
    assert old in mjcf()
    count = -1 if old in ("range='0 .035'", "mujoco") else 1
    (tmp_path / "arm.xml").write_text(mjcf().replace(old, new, count), encoding="utf-8")
    said = complaint(LINES, tmp_path)
    assert part in said, said
    assert said.startswith(f"desk.yaml line {line}: robot: "), said
