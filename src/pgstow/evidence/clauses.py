"""Which clauses of standards and laws a control is evidence for. A control is never the whole of a clause."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CLAUSES", "STANDARDS"]

STANDARDS: Mapping[str, str] = MappingProxyType(
    {
        "iso27001": "ISO/IEC 27001:2022",
        "soc2": "SOC 2 (TSC 2017)",
        "nist": "NIST SP 800-53 Rev. 5",
        "cis": "CIS Controls v8",
        "pci": "PCI DSS 4.0",
        "hipaa": "HIPAA Security Rule",
        "gdpr": "GDPR",
        "dora": "DORA (EU) 2022/2554",
        "nis2": "NIS2 (EU) 2022/2555",
    }
)

# By kind of control; a control names one of these themes, and may have clauses of its own beside them.
_THEMES: Mapping[str, Mapping[str, str]] = {
    "backup": {
        "iso27001": "A.8.13",
        "soc2": "A1.2",
        "nist": "CP-9",
        "cis": "11.1, 11.2",
        "hipaa": "164.308(a)(7)(ii)(A)",
        "gdpr": "32(1)(b), 32(1)(c)",
        "dora": "12(1)",
        "nis2": "21(2)(c)",
    },
    "test": {
        "iso27001": "A.8.13, A.5.30",
        "soc2": "A1.3",
        "nist": "CP-4, CP-9(1), CP-10",
        "cis": "11.5",
        "hipaa": "164.308(a)(7)(ii)(D)",
        "gdpr": "32(1)(c), 32(1)(d)",
        "dora": "11(6), 12(2)",
        "nis2": "21(2)(c)",
    },
    "copy": {
        "iso27001": "A.8.13, A.5.29",
        "soc2": "A1.2",
        "nist": "CP-9(3)",
        "cis": "11.3, 11.4",
        "pci": "9.4.1",
        "hipaa": "164.308(a)(7)(ii)(A)",
        "gdpr": "32(1)(b)",
        "dora": "12(3)",
        "nis2": "21(2)(c)",
    },
    "protect": {
        "iso27001": "A.8.13",
        "soc2": "A1.2",
        "nist": "CP-9, CP-9(8)",
        "cis": "11.3",
        "pci": "9.4.1",
        "hipaa": "164.308(a)(7)(ii)(A)",
        "gdpr": "32(1)(a), 32(1)(b)",
        "dora": "12(2)",
        "nis2": "21(2)(c)",
    },
    "continuity": {
        "iso27001": "A.5.29, A.5.30",
        "soc2": "A1.3",
        "nist": "CP-4, CP-10",
        "cis": "11.1, 11.5",
        "hipaa": "164.308(a)(7)(ii)(B), 164.308(a)(7)(ii)(D)",
        "gdpr": "32(1)(c), 32(1)(d)",
        "dora": "11(6)",
        "nis2": "21(2)(c)",
    },
    "log": {
        "iso27001": "A.8.13",
        "soc2": "A1.2",
        "nist": "CP-9",
        "pci": "10.5",
        "gdpr": "32(1)(b)",
        "dora": "12(1)",
        "nis2": "21(2)(c)",
    },
    "erasure": {"gdpr": "17"},
}
_OF: Mapping[str, str] = {
    "C1": "backup",
    "C2": "backup",
    "C3": "backup",
    "C4": "test",
    "C5": "test",
    "C6": "test",
    "C7": "copy",
    "C8": "protect",
    "C9": "protect",
    "C10": "protect",
    "C11": "protect",
    "C12": "protect",
    "C13": "log",
    "C14": "protect",
    "C15": "backup",
    "C16": "continuity",
    "C17": "continuity",
    "C18": "continuity",
    "C19": "erasure",
    "C20": "backup",
    "C21": "test",
    "C22": "protect",
}

# By control, then by standard.
CLAUSES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {code: MappingProxyType(dict(_THEMES[theme])) for code, theme in _OF.items()}
)
