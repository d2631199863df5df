"""Groups: ranks that communicate with each other, and how others are made of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from mlxdist import _core
from mlxdist.mlx import backend

SHOWN = 16


class GroupLike(Protocol):
    """What ``group=`` takes, for annotations: a ``Group``, or an ``mx.distributed.Group``."""

    def rank(self) -> int:
        """This process's rank in the group."""

    def size(self) -> int:
        """How many ranks the group has."""


class Group(_core.Group):
    """Ranks that communicate with each other, from ``init()``, ``group()`` or ``split()``.

    Groups compare by identity, are hashable and always true. A group is not a number: divide by ``group.size()``.
    """

    def split(self, color: int, key: int = -1) -> Group:
        """Divide the group: ranks that pass the same ``color`` form a new group. Every rank must call it.

        Args:
            color: 0 to 2**31 - 1.
            key: determines the order of ranks in the new group. Equal keys, and the default, keep the present order.

        Raises:
            TypeError: color or key is not an int.
            ValueError: color is negative or too large, or the group is closed.
            MismatchError, PeerError, TimeoutError: as for ``all_sum``.

        Example:
            >>> pair = mlxdist.init().split(mlxdist.init().rank() // 2)

        Works as MLX's ``Group.split`` (MPI 4.1, section 7.4.2), but also on a group of one.
        """
        color, key = _core.as_int("split", "color", color), _core.as_int("split", "key", key)
        if not 0 <= color < 2**31:
            raise ValueError(f"[split] color={color} is out of range: pass a number from 0 to {2**31 - 1}")
        if not -(2**31) <= key < 2**31:
            raise ValueError(f"[split] key={key} is out of range: pass a number from {-(2**31)} to {2**31 - 1}")
        part: Group = _core.split(self, color, self.rank() if key < 0 else key)
        return part

    def group(self, ranks: Sequence[int]) -> Group:
        """The group of some ranks of this one, in this order. Only they call it, each with the same list.

        Args:
            ranks: ranks of this group, this process's among them, from 0 to size() - 1.

        Other ranks may do something else meanwhile. Threads may make several groups at a time, in any order if they are
        of different ranks. A failure leaves this group as it was. The nth call of a rank with these ranks is the nth of
        the others: one that fails does so once on each of them, also on a rank that makes it later.

        Raises:
            TypeError: ranks is not a sequence of ints.
            ValueError: it is empty, has a rank twice or one that is not in the group, or lacks this process's; or the
                group is closed.
            MismatchError: another rank passed other ranks, or another order. Between programs with several Python
                threads only another order is found: a thread may still come. Set a timeout there.
            PeerError: a rank has died, left, or given up its call.
            TimeoutError: a rank has not called it when the group's timeout passed.

        Example:
            >>> world = mlxdist.init()
            >>> world.group([0]).size() if world.rank() == 0 else None
            1

        As MPI_Comm_create_group (MPI 4.1, section 7.4.2).
        """
        part: Group = _core.create(self, _members(self, ranks), threading.active_count() == 1)
        return part

    @property
    def is_usable(self) -> bool:
        """Whether calls on the group can still work on this rank.

        False after an error that left ranks at different calls (MismatchError, PeerError, TimeoutError or
        KeyboardInterrupt, except where the call says otherwise), after the end of MPI, and in a process forked from a
        rank. This does not communicate: another rank may already have seen an error that this one has not.

        Example:
            >>> mlxdist.init().is_usable
            True
        """
        return not (_core.is_finished() or _core.is_broken(self))

    @property
    def mlx(self) -> Any:
        """The same ranks as an ``mx.distributed.Group``."""
        return backend.group_of(self)

    def __repr__(self) -> str:
        return f"<mlxdist.Group: rank {self.rank()} of {self.size()}>"


def _members(group: Group, ranks: Sequence[int]) -> list[int]:
    """The list that ``Group.group`` got, once it is one of different ranks of the group, and has this one."""
    try:
        if isinstance(ranks, (str, bytes)):
            raise TypeError
        listed = list(ranks)
    except TypeError:
        raise TypeError(f"[group] ranks={ranks!r} is not a list of ints: pass the ranks of its members") from None
    checked = [_core.as_int("group", f"ranks[{i}]", rank) for i, rank in enumerate(listed)]
    shown = f"ranks={checked}" if len(checked) <= SHOWN else f"ranks=[{', '.join(map(str, checked[:SHOWN]))}, ...]"
    for rank in checked:
        if not 0 <= rank < group.size():
            raise ValueError(f"[group] {shown}: {rank} is not in the group: pass ranks from 0 to {group.size() - 1}")
    if not checked:
        raise ValueError("[group] ranks is empty: pass the ranks of its members, with this one")
    if len(set(checked)) < len(checked):
        twice = next(rank for rank in checked if checked.count(rank) > 1)
        raise ValueError(f"[group] {shown}: {twice} is there twice: pass each rank once")
    if group.rank() not in checked:
        raise ValueError(f"[group] {shown} lacks this rank, {group.rank()}: only its members call it")
    return checked
