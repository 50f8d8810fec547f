def take(
    functions: tuple[int, int],
    connection: int,
    socket: int,
    wait_ms: int,
    gather_ns: int,
    buffer: bytearray,
    used: int,
    rows: int,
    size: int,
    /,
) -> tuple[int, int, int]: ...
