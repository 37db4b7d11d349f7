"""A Slurm of one node: munged, slurmctld and slurmd in the foreground, with all they write in one directory."""

import os
import secrets
import socket
import subprocess
import time
from pathlib import Path

from tests.launchers.running import environment

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


class Slurm:
    """While entered, jobs can be submitted."""

    def __init__(self, place: Path):
        self.place = place
        self.processes: list[subprocess.Popen] = []
        self.environment = environment(SLURM_CONF=str(place / 'slurm.conf'))

    def __enter__(self):
        for name in ('state', 'spool'):
            (self.place / name).mkdir(parents=True)
        key = self.place / 'munge.key'
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname().split('.')[0]
        ports = dict(zip(('controller', 'daemon'), _free_ports(2), strict=True))
        (self.place / 'slurm.conf').write_text(CONFIGURATION.format(place=self.place, host=host, **ports))
        munge = {name: f'--{name}-file={self.place}/munge.{name}' for name in ('key', 'pid', 'log', 'seed')}
        self._start('munged', '--foreground', '--force', f'--socket={self.place}/munge.socket', *munge.values())
        self._wait(lambda: (self.place / 'munge.socket').exists(), 'munged')
        self._start('slurmctld', '-D', '-c')
        self._start('slurmd', '-D', '-N', host)
        self._wait(lambda: 'idle' in self.run(['sinfo', '-h', '-o', '%T'], check=False), 'the node')
        return self

    def __exit__(self, *_):
        self.run(['scancel', '--user=root'], check=False)
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            process.wait(30)

    def run(self, words, check=True, cwd=None):
        """What a command of Slurm says."""
        done = subprocess.run(words, cwd=cwd, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def state(self, job):
        """COMPLETED, RUNNING …; nothing once Slurm has forgotten the job."""
        return self.run(['squeue', '--noheader', '--states=all', f'--jobs={job}', '--format=%T'], check=False).strip()

    def _start(self, *words):
        with open(self.place / f'{words[0]}.out', 'w') as file:
            self.processes.append(
                subprocess.Popen(words, env=self.environment | {'HOME': os.environ['HOME']}, stdout=file, stderr=file)
            )

    def _wait(self, fits, what):
        deadline = time.monotonic() + 60
        while not fits():
            told = '\n'.join(path.read_text() for path in self.place.glob('*.out'))
            assert time.monotonic() < deadline, f'{what} did not come\n{told}'
            time.sleep(0.2)


def _free_ports(count):
    found = [socket.socket() for _ in range(count)]
    for one in found:
        one.bind(('127.0.0.1', 0))
    ports = [one.getsockname()[1] for one in found]
    for one in found:
        one.close()
    return ports
