"""Run the notebooks again and keep their outputs: python -m notebooks.execute [FILE ...]

Each runs in a fresh kernel of this interpreter, in an empty folder, without a network. What changes from run to run and
says nothing (times, versions, what the kernel is called) is left out of the file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
SECONDS = 300  # of a cell: one that hangs ends
OFFLINE = """
import socket

HERE = ("127.0.0.1", "localhost", "::1")
connect, find = socket.socket.connect, socket.getaddrinfo

def local(host):
    if host not in HERE:
        raise OSError(f"{host}: notebooks run without a network")
    return host

def checked(self, address):
    return connect(self, (local(address[0]), *address[1:]) if isinstance(address, tuple) else address)

socket.socket.connect = checked
socket.getaddrinfo = lambda host, *rest, **named: find(local(host), *rest, **named)
"""  # run by the kernel, and by every Python that it starts, before anything else
KERNEL = {
    "OMP_NUM_THREADS": "1",  # more only lose time on matrices of mini's size, a lot of it on a busy machine
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm wants ipywidgets for bars that nobody draws
}


def notebooks() -> list[Path]:
    """In the order of their numbers."""
    return sorted(HERE.glob("*.ipynb"))


def executed(path: Path) -> NotebookNode:
    """The notebook with what it puts out here; nbclient's CellExecutionError where a cell raises."""
    found = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as folder:
        Path(home, "sitecustomize.py").write_text(OFFLINE, encoding="utf-8")
        client = NotebookClient(
            found,
            timeout=SECONDS,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        manager = client.create_kernel_manager()
        manager.kernel_spec_manager = KernelSpecManager(kernel_dirs=[])  # this interpreter, whatever is installed
        if os.name != "nt":  # sockets as files: no port to listen on
            manager.transport, manager.connection_file = "ipc", os.path.join(home, "kernel.json")
        paths = os.pathsep.join([home, str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        client.execute(env={**os.environ, **KERNEL, "IPYTHONDIR": home, "PYTHONPATH": paths})
    return clean(found)


def clean(found: NotebookNode) -> NotebookNode:
    """Nothing but cells, their outputs, and the kernel that they want."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    found.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for number, cell in enumerate(found.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = list(_together(cell.outputs))
    return found


def _together(outputs: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """What was printed in one piece: how it was cut depends on the time it took."""
    for (_, name), group in groupby(outputs, lambda output: (output.output_type, output.get("name"))):
        pieces = list(group)
        if name is None:
            yield from pieces
        else:
            yield nbformat.v4.new_output("stream", name=name, text="".join(piece.text for piece in pieces))


def main() -> None:
    """Those given, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or notebooks():
        found = executed(path)
        nbformat.write(found, path)
        print(path)


if __name__ == "__main__":
    main()
