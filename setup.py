"""The one part that is compiled; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "pgstow.postgres._copy_rows",
            ["src/pgstow/postgres/_copy_rows.c"],
            extra_compile_args=["-O2"],
            py_limited_api=True,
            optional=True,  # without a compiler the same loop runs in Python
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
