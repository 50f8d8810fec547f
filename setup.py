"""The parts that are compiled; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"pgstow.postgres.{name}",
            [f"src/pgstow/postgres/{name}.c"],
            extra_compile_args=["-O2"],
            py_limited_api=True,
            optional=True,  # without a compiler the same is done in Python
        )
        for name in ("_copy_rows", "_row_digests")
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
