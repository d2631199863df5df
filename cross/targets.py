"""The systems that the extensions are compiled for without being there, and what each has."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A system.

    Attributes:
        name: as zig calls it, with the oldest version that the extensions must work on.
        platform: as wheels call it.
        suffix: of extensions' file names, behind the version of Python.
        has_wheel: whether `make wheels` builds one.
    """

    name: str
    platform: str
    suffix: str
    has_wheel: bool = False

    @property
    def is_macos(self) -> bool:
        """Whether it is macOS; else it is Linux."""
        return "-macos" in self.name


TARGETS = (
    Target("aarch64-macos.11.0", "macosx_11_0_arm64", "darwin", has_wheel=True),
    Target("x86_64-macos.11.0", "macosx_11_0_x86_64", "darwin"),
    Target("aarch64-linux-gnu.2.28", "manylinux_2_28_aarch64", "aarch64-linux-gnu", has_wheel=True),
    Target("x86_64-linux-gnu.2.28", "manylinux_2_28_x86_64", "x86_64-linux-gnu", has_wheel=True),
    Target("x86_64-linux-musl", "musllinux_1_2_x86_64", "x86_64-linux-musl"),
)

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")  # a wheel for each

# What C++ may take from the system: the names that GCC's library and LLVM's have in common, so that either's headers
# will do, with their versions in GCC's. With zig's own library linked in, the first exception that passes through MLX
# crashes (zig 0.17.1, MLX 0.32.4 on Linux): one runtime must throw and catch it.
CXX = {
    "GLIBCXX_3.4": "_ZNSt13runtime_errorD1Ev _ZTISt13runtime_error _ZSt7nothrow _ZSt9terminatev _ZdaPv _ZdlPv _Znam "
    "_ZnamRKSt9nothrow_t _Znwm",
    "GLIBCXX_3.4.21": "_ZNSt13runtime_errorC1EPKc",
    "CXXABI_1.3": "__cxa_allocate_exception __cxa_begin_catch __cxa_end_catch __cxa_free_exception __cxa_guard_abort "
    "__cxa_guard_acquire __cxa_guard_release __cxa_throw __gxx_personality_v0",
    "CXXABI_1.3.9": "_ZdaPvm _ZdlPvm",
}
UNWINDER = {"GCC_3.0": "_Unwind_Resume"}  # on macOS a part of libSystem
