"""Several hosts on one Linux machine, for ranks that communicate over a real network.

    python tests/hosts/testbed.py [--hosts N] [--rate 200mbit] [--delay 1ms] COMMAND...

runs COMMAND on the first of them, h1, and removes all of them when it ends.

A host is a set of namespaces (net, mount, pid, ipc, uts) around an sshd: it has its own eth0, /tmp, /dev/shm, /run,
/proc and boot id, and root may ssh from each to each. All other files are common, as on a cluster with a shared file
system; so are the folders in `shared`, and the repository if it is below /tmp. The hosts meet on a bridge in a
namespace of its own: the machine's network is not touched. No namespace has a name and every process dies with the
testbed, so nothing can be left behind, even if the testbed is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = {"iproute2": "ip", "openssh-client": "ssh", "openssh-server": "sshd", "util-linux": "unshare"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READY_S = 15

# With large frames headers are less than 1 % of what is sent, so a test may compare bytes on the wire with the least
# that an operation has to send. With 1500 bytes they would be up to 4 %.
MTU = 9000
# How much a link that was idle lets through at once: a machine that is busy serves the timer late, and would lose
# throughput with less. The queue holds as much as all connections to a host may have under way: a lost packet would be
# sent, and counted, twice.
BURST, QUEUE = "400kb", "8mb"

SSH_CONFIG = """\
IdentityFile /etc/ssh/key
BatchMode yes
ConnectTimeout 5
GlobalKnownHostsFile /etc/ssh/known_hosts
UserKnownHostsFile /dev/null
"""
SSHD_CONFIG = """\
HostKey /etc/ssh/key
AuthorizedKeysFile /etc/ssh/key.pub
UsePAM no
MaxStartups 100
"""
# The first process of a host: when it dies, the kernel ends all others.
FIRST_PROCESS = """
name=$1 files=$2; shift 2  # what is left: folders below /tmp that stay common
hostname "$name"
ip link set lo up
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd /run/lock
cp -a "$files/boot_id" "$files/../hosts" "$files/../ssh" /run
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mount --bind /run/hosts /etc/hosts
mount --bind /run/ssh /etc/ssh
mount -t tmpfs -o mode=1777 tmpfs "$files/tmp"
for folder; do
    mkdir -p "$files/tmp/${folder#/tmp/}"
    mount --rbind "$folder" "$files/tmp/${folder#/tmp/}"
done
mount --move "$files/tmp" /tmp
exec /usr/sbin/sshd -D -e
"""


def why_not() -> str | None:
    """Why there can be no testbed here, and what to do about it."""
    if sys.platform != "linux" or os.geteuid():
        return "hosts are made of Linux namespaces by root"
    missing = [package for package, program in PROGRAMS.items() if not shutil.which(program, path=SYSTEM_PATH)]
    if missing:
        return f"hosts need programs that are not installed: apt install {' '.join(missing)}"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    return f"no namespaces can be made here: {tried.stderr.strip()}" if tried.returncode else None


class Testbed:
    """Hosts h1, h2 ...; use it in a `with` statement.

    Args:
        hosts: how many.
        rate: of each link, in each direction, as for tc(8); None: no limit.
        delay: of each packet, as for tc(8); needs a kernel with netem. None: no delay.
        shared: folders below /tmp that all hosts see.
    """

    __test__ = False

    def __init__(
        self, hosts: int = 4, rate: str | None = "200mbit", delay: str | None = None, shared: Sequence[Path] = ()
    ) -> None:
        self.address = {f"h{i}": f"10.99.0.{i}" for i in range(1, hosts + 1)}
        self.rate, self.delay = rate, delay
        self.shared = [path.resolve() for path in (ROOT, *shared) if path.resolve().is_relative_to("/tmp")]
        self.process: dict[str, subprocess.Popen[bytes]] = {}  # of each host, and of the switch
        self.namespace: dict[str, int] = {}  # the same: the inode of its pid namespace
        self.files = Path()  # while it starts

    def __enter__(self) -> Testbed:
        self.files = Path(tempfile.mkdtemp(prefix="mlxdist-testbed-"))
        try:
            self._write_files()
            self._start("switch", "net", "unshare", "--net", "sleep", "infinity")
            self._network("switch", "ip", "link add br0 type bridge", "link set br0 up")
            for name in self.address:
                self._add_host(name)
            for name in self.address:
                self._await(name)
        except BaseException:
            self.close()
            raise
        finally:
            shutil.rmtree(self.files)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything on all hosts, and remove them."""
        for process in self.process.values():
            process.kill()
        for process in self.process.values():
            process.wait()
        self.end_processes()

    def command(self, host: str, *command: str | Path) -> list[str]:
        """The command line that runs ``command`` on ``host``, in this folder."""
        pid = self.process[host].pid
        enter = ["nsenter", f"--target={pid}", *(f"--{kind}" for kind in ("net", "mount", "ipc", "uts"))]
        enter += [f"--pid=/proc/{pid}/ns/pid_for_children", "--", "env", f"--chdir={os.getcwd()}"]
        return [*enter, *map(str, command)]

    def processes(self, host: str) -> dict[int, str]:
        """What runs on ``host`` besides its sshd: the pids, as this machine has them, and the command lines."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_first = f"PPid:\t{self.process[host].pid}\n" in (entry / "status").read_text()
                if _namespace(entry, "pid") == self.namespace.get(host, 0) and not is_first:
                    found[int(entry.name)] = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        return found

    def end_processes(self) -> None:
        """End all that runs on the hosts, but not these."""
        while left := [pid for host in self.address for pid in self.processes(host)]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def path(self, host: str, path: str) -> Path:
        """Where this machine finds ``path`` of ``host``, such as its /tmp."""
        return Path(f"/proc/{self.process[host].pid}/root{path}")

    def sent(self, host: str) -> int:
        """How many bytes ``host`` has sent over its link, with all headers."""
        lines = Path(f"/proc/{self.process[host].pid}/net/dev").read_text().splitlines()
        return next(int(line.split()[9]) for line in lines if line.strip().startswith("eth0:"))

    def cut(self, host: str) -> None:
        """Pull out the cable of ``host``."""
        self._network("switch", "ip", f"link set {host} down")

    def heal(self, host: str) -> None:
        """Put it back."""
        self._network("switch", "ip", f"link set {host} up")

    def _write_files(self) -> None:
        """What is the same in /etc of all hosts, and of each its boot id and the place of its /tmp."""
        ssh = self.files / "ssh"
        ssh.mkdir()
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "testbed", "-f", str(ssh / "key")]
        subprocess.run(generate, check=True)
        (ssh / "known_hosts").write_text(f"* {(ssh / 'key.pub').read_text()}")
        (ssh / "ssh_config").write_text(SSH_CONFIG)
        (ssh / "sshd_config").write_text(SSHD_CONFIG)
        names = [("localhost", "127.0.0.1"), *self.address.items()]
        (self.files / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names))
        for name in self.address:
            (self.files / name / "tmp").mkdir(parents=True)
            (self.files / name / "boot_id").write_text(f"{uuid.uuid4()}\n")

    def _start(self, name: str, kind: str, *command: str) -> None:
        """Start a process that dies with this one, and wait until it has its own namespace of this kind, the last."""
        with open(self.files / f"{name}.log", "wb") as log:
            self.process[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                cwd="/",
                env={"PATH": SYSTEM_PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while (inode := _namespace(f"/proc/{self.process[name].pid}", kind)) in (None, _namespace("/proc/self", kind)):
            self._check(name, deadline)
        self.namespace[name] = inode

    def _add_host(self, name: str) -> None:
        first = ["unshare", "--net", "--mount", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
        arguments = [name, str(self.files / name), *map(str, self.shared)]
        self._start(name, "pid_for_children", *first, "sh", "-ec", FIRST_PROCESS, "sh", *arguments)
        peer = f"peer name eth0 mtu {MTU} netns {self.process[name].pid}"
        self._network("switch", "ip", f"link add {name} mtu {MTU} type veth {peer}", f"link set {name} master br0 up")
        # Linux's own congestion control, whatever this machine uses
        route = f"route replace 10.99.0.0/24 dev eth0 src {self.address[name]} congctl cubic"
        self._network(name, "ip", f"address add {self.address[name]}/24 dev eth0", "link set eth0 up", route)
        for place, link in (name, "eth0"), ("switch", name):
            root = f"qdisc add dev {link} root"
            if self.rate:
                self._network(place, "tc", f"{root} handle 1: tbf rate {self.rate} burst {BURST} limit {QUEUE}")
                root = f"qdisc add dev {link} parent 1:1"
            if self.delay and place == "switch":
                self._network(place, "tc", f"{root} netem delay {self.delay} limit 100000")

    def _network(self, name: str, program: str, *lines: str) -> None:
        """Run lines of ip or tc in the network of a host or of the switch."""
        command = ["nsenter", f"--target={self.process[name].pid}", "--net", program, "-batch", "-"]
        ran = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, env={"PATH": SYSTEM_PATH})
        if ran.returncode:
            raise OSError(f"{name}: {program}: {ran.stderr.strip()}")

    def _await(self, name: str) -> None:
        """Wait until the first host reaches ``name`` by ssh."""
        deadline = time.monotonic() + READY_S
        command = self.command(next(iter(self.address)), "ssh", name, "hostname")
        while subprocess.run(command, capture_output=True, text=True).stdout != f"{name}\n":
            self._check(name, deadline)

    def _check(self, name: str, deadline: float) -> None:
        if self.process[name].poll() is not None or time.monotonic() > deadline:
            raise OSError(f"{name} does not start: {(self.files / f'{name}.log').read_text()}")
        time.sleep(0.01)


def _namespace(process: str | Path, kind: str) -> int | None:
    """The inode of a namespace of a process; None before there is one."""
    try:
        return Path(process, "ns", kind).stat().st_ino
    except OSError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--rate", default="200mbit")
    parser.add_argument("--delay")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if why := why_not():
        parser.error(why)
    with Testbed(options.hosts, options.rate, options.delay, [Path.cwd()]) as bed:
        switch = f"nsenter -t {bed.process['switch'].pid} -n ip link set h2"
        print(f"hosts {' '.join(bed.address)}; to cut off h2: {switch} down; to heal it: {switch} up", file=sys.stderr)
        return subprocess.run(bed.command("h1", *(options.command or ["bash"]))).returncode


if __name__ == "__main__":
    sys.exit(main())
