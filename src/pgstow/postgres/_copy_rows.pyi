def take(
    functions: tuple[int, int],
    connection: int,
    socket: int,
    has_tls: bool,
    wait_ms: int,
    gather_ns: int,
    buffer: bytearray,
    used: int,
    rows: int,
    size: int,
    /,
) -> tuple[int, int, int]: ...
