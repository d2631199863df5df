"""What a shared object or an object file says of itself, in ELF or Mach-O."""

from dataclasses import dataclass
from pathlib import Path

import lief

lief.logging.disable()
ANYWHERE = ""  # where the loader looks for a name that may be in any library


@dataclass(frozen=True)
class Binary:
    """Names without the underscore that Mach-O puts before them.

    Attributes:
        defined: names that other files can use; in a shared object these are the exported ones.
        undefined: the others, each with what the loader looks for: a version (ELF) or a library (Mach-O).
        libraries: what the loader opens with it.
        header: what else must be right.
    """

    defined: set[str]
    undefined: dict[str, str]
    libraries: list[str]
    header: dict[str, object]


def read(path: Path) -> Binary:
    parsed = lief.parse(str(path))
    return _read_macho(parsed) if isinstance(parsed, lief.MachO.Binary) else _read_elf(parsed)


def _read_elf(parsed: lief.ELF.Binary) -> Binary:
    is_object = parsed.header.file_type == lief.ELF.Header.FILE_TYPE.REL
    symbols = [
        symbol
        for symbol in (parsed.symtab_symbols if is_object else parsed.dynamic_symbols)
        if symbol.binding != lief.ELF.Symbol.BINDING.LOCAL
    ]
    undefined = {}
    for symbol in symbols:
        if not symbol.shndx:
            version = symbol.symbol_version and symbol.symbol_version.symbol_version_auxiliary
            undefined[symbol.name] = version.name if version else ANYWHERE
    return Binary({symbol.name for symbol in symbols if symbol.shndx}, undefined, list(parsed.libraries), {})


def _read_macho(parsed: lief.MachO.Binary) -> Binary:
    libraries = [
        library.name for library in parsed.libraries if library.command != lief.MachO.LoadCommand.TYPE.ID_DYLIB
    ]
    by_ordinal = dict(enumerate(libraries, 1))
    external = 1
    symbols = [symbol for symbol in parsed.symbols if symbol.raw_type & external]
    defined = {symbol.name[1:] for symbol in symbols if symbol.numberof_sections}
    undefined = {
        symbol.name[1:]: by_ordinal.get(symbol.library_ordinal, ANYWHERE)
        for symbol in symbols
        if not symbol.numberof_sections
    }
    identity = parsed.get(lief.MachO.LoadCommand.TYPE.ID_DYLIB)
    header = {
        "namespace": "two-level" if parsed.header.has(lief.MachO.Header.FLAGS.TWOLEVEL) else "flat",
        "install name": identity and identity.name,
        "oldest system": parsed.build_version and ".".join(map(str, parsed.build_version.minos[:2])),
        "signed": parsed.has_code_signature,
    }
    return Binary(defined, undefined, libraries, header)
