"""What a BabyAI robot can know: a map of what it has seen, facts judged on it, and views of it from the robot.

The robot's place is reckoned from its actions: a step forward is made where the cell in front can be entered. The map
is 64 x 64 cells around where an episode began, (object, colour, state) each as in the image, 0 where nothing was seen.
All arrays are batched over n slots; a batch of things is int64[n, 3]: kind, colour, place, -1 where left open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.suites.babyai_missions import COLOURS, KINDS, PLACES, PREDICATES, Fact, MissionError, Thing

__all__ = ["FORWARD", "VIEW", "Tracker", "encode", "feature_size"]

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE = range(6)
SIZE, VIEW = 64, 11  # cells of a side: of the map, of what is seen from the robot
UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, GOAL = 0, 1, 2, 3, 4, 5, 8
OPEN, SHUT, LOCKED = range(3)
FAR = 12.0  # actions, to what is not seen
_AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # a step (x, y) by direction; the next one is to its right
_I, _J = np.meshgrid(np.arange(7), np.arange(7), indexing="ij")
_PLACES = tuple(PLACES)
CHANNELS = ("unseen", "free", "first", "second", "shut", "locked", "keys")


def encode(things: Sequence[Thing | None]) -> np.ndarray:
    """int64[n, 3] of n things; None is a thing that nothing is."""
    rows = [
        (99, -1, -1)
        if t is None
        else (KINDS.get(t.kind, -1), COLOURS.get(t.colour, -1), _PLACES.index(t.place) if t.place else -1)
        for t in things
    ]
    return np.array(rows, np.int64).reshape(len(rows), 3)


def feature_size(named: bool = True) -> int:
    """Numbers in a row of `Tracker.features`."""
    return VIEW * VIEW * (4 if named else len(CHANNELS)) + 3


class Tracker:
    """n slots' maps and places; ``image`` uint8[n, 7, 7, 3] and ``heading`` int64[n] are the latest."""

    def __init__(self, n: int) -> None:
        self.map = np.zeros((n, SIZE, SIZE, 3), np.uint8)  # [slot, y, x]
        self.place = np.zeros((n, 2), np.int64)  # x, y
        self.heading, self.first_heading = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.image = np.zeros((n, 7, 7, 3), np.uint8)

    def begin(self, slots: np.ndarray, image: np.ndarray, direction: np.ndarray) -> None:
        """New episodes in ``slots`` int64[m] (or bool[n]): nothing is known but image [m, …] and direction int[m]."""
        self.map[slots], self.place[slots] = 0, SIZE // 2
        self.first_heading[slots] = self.heading[slots] = direction
        self.image[slots] = image
        self._remember(np.arange(len(self.map))[slots])

    def step(self, actions: np.ndarray, image: np.ndarray, direction: np.ndarray) -> None:
        """What actions int[n] led to, for all slots."""
        moved = (np.asarray(actions) == FORWARD) & self._enterable(self.image[:, 3, 5])
        self.place[moved] += _AHEAD[self.heading[moved]]
        self.image[:], self.heading[:] = image, direction
        self._remember(np.arange(len(self.map)))

    def _remember(self, slots: np.ndarray) -> None:
        x, y = self._cells(slots, 6 - _J, _I - 3)
        seen = self.image[slots][..., 0] != UNSEEN
        seen[:, 3, 6] = False  # the robot's own cell shows what it carries
        row = np.broadcast_to(slots[:, None, None], x.shape)
        self.map[row[seen], y[seen], x[seen]] = self.image[slots][seen]
        own = (slots, self.place[slots, 1], self.place[slots, 0])
        unknown = self.map[own][:, 0] == UNSEEN
        self.map[own[0][unknown], own[1][unknown], own[2][unknown]] = (EMPTY, 0, 0)

    def _cells(self, slots: np.ndarray, ahead: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map columns and rows int64[m, …] of the cells so far ahead and to the right of the robots."""
        step, side = _AHEAD[self.heading[slots]], _AHEAD[(self.heading[slots] + 1) % 4]
        shape = (len(slots),) + (1,) * ahead.ndim
        found = [
            self.place[slots, k].reshape(shape) + ahead * step[:, k].reshape(shape) + right * side[:, k].reshape(shape)
            for k in (0, 1)
        ]
        return np.clip(found[0], 0, SIZE - 1), np.clip(found[1], 0, SIZE - 1)

    @staticmethod
    def _enterable(cells: np.ndarray) -> np.ndarray:
        kind, state = cells[..., 0], cells[..., 2]
        return (kind == EMPTY) | (kind == FLOOR) | (kind == GOAL) | ((kind == DOOR) & (state == OPEN))

    # -- facts ---------------------------------------------------------------------------------------------------

    def holds(self, predicate: str, slots: np.ndarray, things: Sequence[np.ndarray] = ()) -> np.ndarray:
        """bool[m]: whether a fact holds in ``slots`` int64[m], of things int64[m, 3] each (see `encode`)."""
        if predicate not in PREDICATES:
            raise MissionError(f"unknown predicate '{predicate}'; the predicates are {', '.join(PREDICATES)}")
        own = self.image[slots, 3, 6]
        if predicate == "empty_handed":
            return own[:, 0] == EMPTY
        if predicate == "barred":
            cells = self.map[slots]
            return ((cells[..., 0] == DOOR) & (cells[..., 2] == LOCKED)).any((1, 2))
        first = things[0]
        if predicate == "facing":
            x, y = self._cells(slots, np.array(1), np.array(0))
            return _alike(self.image[slots, 3, 5], first) & self._placed(slots, x, y, first)
        if predicate == "carrying":
            return _alike(own, first)
        if predicate == "beside":
            one, other = (self._where(slots, thing) for thing in things)
            near = np.zeros_like(one)
            near[:, 1:] |= one[:, :-1]
            near[:, :-1] |= one[:, 1:]
            near[:, :, 1:] |= one[:, :, :-1]
            near[:, :, :-1] |= one[:, :, 1:]
            return np.asarray((near & other).any((1, 2)))
        where = self._where(slots, first)
        if predicate == "seen":
            return where.any((1, 2)) | _alike(own, first)
        return (where & (self.map[slots][..., 2] == (OPEN if predicate == "open" else LOCKED))).any((1, 2))

    def distance(self, predicate: str, slots: np.ndarray, things: Sequence[np.ndarray]) -> np.ndarray:
        """float64[m]: about how many actions a fact that can be brought about is away, 0 where it holds.

        To a thing it is the cells on the way and the turns, where it lies within `VIEW`; `FAR` where it is not seen.
        """
        holds = self.holds(predicate, slots, things)
        if predicate in ("empty_handed", "barred"):
            return np.where(holds, 0.0, 1.0)
        far = self._way(slots, things[0])
        if predicate == "beside":
            way = np.abs(self._way(slots, things[1]) - 1.0)  # where it is put there must be room in between
            far = np.where(_alike(self.image[slots, 3, 6], things[0]), way, 2.0 + FAR + far)
        return np.where(holds, 0.0, far + (predicate != "facing"))

    def _way(self, slots: np.ndarray, things: np.ndarray) -> np.ndarray:
        ahead, right = _around()
        x, y = self._cells(slots, ahead, right)
        there = _alike(self.map[slots[:, None, None], y, x], things) & self._placed(slots, x, y, things)
        turns = np.where(ahead > 0, right != 0, np.where(right != 0, 1, 2))
        way = np.where(there, np.abs(ahead) + np.abs(right) - 1.0 + turns, FAR)
        return way.reshape(len(slots), -1).min(1)

    def judge(self, facts: Sequence[Fact | None], slots: np.ndarray) -> np.ndarray:
        """bool[m]: whether each slot's own fact holds in ``slots`` int64[m]; None never does."""
        found = np.zeros(len(slots), np.bool_)
        for name, positive in {(f.predicate, f.positive) for f in facts if f is not None}:
            rows = np.array([i for i, f in enumerate(facts) if f and (f.predicate, f.positive) == (name, positive)])
            things = [encode([facts[i].args[k] for i in rows]) for k in range(len(PREDICATES[name]))]  # type: ignore[union-attr]
            found[rows] = self.holds(name, slots[rows], things) == positive
        return found

    def known(self, slot: int) -> list[Thing]:
        """The things on a slot's map and what it carries: kind and colour, in the words' order, each once."""
        cells = np.concatenate([self.map[slot].reshape(-1, 3), self.image[slot, 3, 6][None]])
        pairs = {(int(k), int(c)) for k, c in cells[(cells[:, 0] >= DOOR) & (cells[:, 0] < GOAL)][:, :2]}
        kinds, colours = ({v: k for k, v in names.items()} for names in (KINDS, COLOURS))
        return [Thing(kinds[k], colours[c]) for k, c in sorted(pairs)]

    def locked(self, slot: int) -> list[Thing]:
        """The locked doors on a slot's map."""
        cells = self.map[slot][(self.map[slot][..., 0] == DOOR) & (self.map[slot][..., 2] == LOCKED)]
        colours = {v: k for k, v in COLOURS.items()}
        return [Thing("door", colours[c]) for c in sorted(set(cells[:, 1].tolist()))]

    def _where(self, slots: np.ndarray, things: np.ndarray) -> np.ndarray:
        """bool[m, y, x]: where on the maps such things are."""
        x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
        return _alike(self.map[slots], things) & self._placed(slots, x[None], y[None], things)

    def _placed(self, slots: np.ndarray, x: np.ndarray, y: np.ndarray, things: np.ndarray) -> np.ndarray:
        """Whether cells lie where each thing's description says, as seen from where the episode began."""
        shape = (len(slots),) + (1,) * (x.ndim - 1)
        if (things[:, 2] < 0).all():
            return np.ones(np.broadcast_shapes(shape, x.shape), np.bool_)
        ahead, right = _AHEAD[self.first_heading[slots]], _AHEAD[(self.first_heading[slots] + 1) % 4]
        dx, dy = x - SIZE // 2, y - SIZE // 2
        forward = dx * ahead[:, 0].reshape(shape) + dy * ahead[:, 1].reshape(shape)
        aside = dx * right[:, 0].reshape(shape) + dy * right[:, 1].reshape(shape)
        place = things[:, 2].reshape(shape)
        ahead_of, behind = (place == 0) & (forward > 0), (place == 1) & (forward < 0)
        return (place < 0) | ahead_of | behind | ((place == 2) & (aside < 0)) | ((place == 3) & (aside > 0))

    # -- views ---------------------------------------------------------------------------------------------------

    def features(self, slots: np.ndarray, first: np.ndarray, second: np.ndarray, named: bool = True) -> np.ndarray:
        """float32[m, feature_size]: the map from above, turned so that the robot looks up, 5 cells each way.

        Of what lies there only this is told: unseen, free, like the first thing, like the second; and whether the
        robot carries something, the first, the second. Without ``named`` also doors that are shut, that are locked,
        and keys, which the things do not name.
        """
        ahead, right = _around()
        x, y = self._cells(slots, ahead, right)
        cells = self.map[slots[:, None, None], y, x]
        planes = [cells[..., 0] == UNSEEN, self._enterable(cells)]
        planes += [_alike(cells, t) & self._placed(slots, x, y, t) for t in (first, second)]
        if not named:
            door = cells[..., 0] == DOOR
            planes += [door & (cells[..., 2] == SHUT), door & (cells[..., 2] == LOCKED), cells[..., 0] == KEY]
        own = self.image[slots, 3, 6]
        carried = np.stack([own[:, 0] != EMPTY, _alike(own, first), _alike(own, second)], axis=1)
        flat = np.stack(planes, axis=1).reshape(len(slots), -1)
        return np.concatenate([flat, carried], axis=1).astype(np.float32)

    def text(self, slot: int) -> str:
        """A slot's map in letters, a row a line: the robot as an arrow, k b o D for key, box, ball and door."""
        letters = np.array(list(" .#_Dkob!!?"))[np.minimum(self.map[slot, ..., 0], 10)]
        known = np.argwhere(self.map[slot, ..., 0] != UNSEEN)
        letters[self.place[slot, 1], self.place[slot, 0]] = ">v<^"[self.heading[slot]]
        (top, left), (bottom, right) = known.min(0), known.max(0)
        return "\n".join("".join(row[left : right + 1]) for row in letters[top : bottom + 1])


def _around() -> tuple[np.ndarray, np.ndarray]:
    """How far ahead and to the right the cells of a view from above are, int64[VIEW, VIEW] each."""
    reach = np.arange(VIEW) - VIEW // 2
    return tuple(np.meshgrid(-reach, reach, indexing="ij"))  # type: ignore[return-value]


def _alike(cells: np.ndarray, things: np.ndarray) -> np.ndarray:
    """bool[m, …]: which cells uint8[m, …, 3] hold a thing of each row's kind and colour."""
    shape = (len(things),) + (1,) * (cells.ndim - 2)
    kind, colour = things[:, 0].reshape(shape), things[:, 1].reshape(shape)
    anything = (kind < 0) & (cells[..., 0] >= DOOR) & (cells[..., 0] < GOAL)
    return ((cells[..., 0] == kind) | anything) & ((cells[..., 1] == colour) | (colour < 0))
