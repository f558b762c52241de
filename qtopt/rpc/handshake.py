"""The first words of a connection: both sides say what they take the data to be; every difference is named."""

from qtopt import __version__
from qtopt.errors import SchemaMismatch
from qtopt.rpc.gen import replay_pb2 as pb
from qtopt.specs import ACTION_FIELDS, OLDEST_SCHEMA_VERSION, SCHEMA_VERSION


def local_schema(image_size: tuple[int, int] | None) -> pb.Schema:
    """Returns this side's schema; ``image_size`` is (height, width) [pixels], None where any size will do."""
    height, width = image_size or (0, 0)
    return pb.Schema(
        schema_version=SCHEMA_VERSION,
        image_height=height,
        image_width=width,
        action_fields=ACTION_FIELDS,
        package_version=__version__,
    )


def negotiate(client: pb.Schema, server: pb.Schema, oldest: int = OLDEST_SCHEMA_VERSION) -> pb.Schema:
    """Returns the server's schema as this client is to see it: in the client's version, where that is still served.

    Args:
        client: as it came.
        server: the server's own.
        oldest: version from which on clients are served.

    Raises:
        SchemaMismatch: they cannot work together; says which of them to upgrade.
    """
    theirs, ours = client.schema_version, server.schema_version
    if not oldest <= theirs <= ours:
        todo = "upgrade the server first, then its clients" if theirs > ours else "upgrade the client"
        raise SchemaMismatch(
            f"client and server differ in schema version (client {theirs}, server {ours}, which takes {oldest} to "
            f"{ours}: {todo}){_other_differences(client, server)}"
        )
    answer = pb.Schema()
    answer.CopyFrom(server)
    answer.schema_version = theirs
    check_schemas(client, answer)
    return answer


def check_schemas(client: pb.Schema, server: pb.Schema) -> None:
    """Raises SchemaMismatch, naming every difference, unless both sides can work with each other's data.

    The package's version alone is no reason to refuse; it is named beside real differences.
    """
    faults = _differences(client, server)
    if client.schema_version != server.schema_version:
        faults.insert(0, f"schema version (client {client.schema_version}, server {server.schema_version})")
    if not faults:
        return
    if client.package_version != server.package_version:
        faults.append(f"package version (client {client.package_version}, server {server.package_version})")
    raise SchemaMismatch(
        f"client and server differ in {'; '.join(faults)}: start both with the same image size (--image-px of the "
        "server, --sim.camera.size-px of a simulated collector) and release, or give the server another store"
    )


def _other_differences(client: pb.Schema, server: pb.Schema) -> str:
    return "".join(f"; {fault}" for fault in _differences(client, server))


def _differences(client: pb.Schema, server: pb.Schema) -> list[str]:
    """Returns what differs beside versions."""
    faults = []
    sizes = [(side.image_height, side.image_width) for side in (client, server)]
    if (0, 0) not in sizes and sizes[0] != sizes[1]:
        ours, theirs = (f"{height}x{width}" for height, width in sizes)
        faults.append(f"image size in pixels (client {ours}, server {theirs})")
    if list(client.action_fields) != list(server.action_fields):
        ours, theirs = (", ".join(side.action_fields) or "none" for side in (client, server))
        faults.append(f"action fields (client {ours}; server {theirs})")
    return faults
