"""The processes that are measured, ours and the peers': each answers requests for a case (see serve.py), and only one works at a time."""
import json
import os
import selectors
import subprocess
import tempfile
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
# After a turn, so long that threads that wait for more work have gone to sleep.
PAUSE = 0.05
# Compiling a training step, or preparing a large case, takes its time.
PATIENCE = 300


class Partner:
    """One process that serves cases. It starts at the first request."""

    def __init__(self, name, command, environment=()):
        self.name, self.command, self.environment = name, command, dict(environment)
        self.process = None
        self.description = {}

    def start(self):
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, **self.environment})
        self.pending = b""
        self.description = self.read()

    def read(self):
        """The next line of JSON. What else the process prints is passed over."""
        end = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while True:
                while b"\n" in self.pending:
                    line, self.pending = self.pending.split(b"\n", 1)
                    if line.startswith(b"{"):
                        return json.loads(line)
                if not selector.select(max(0, end - time.monotonic())):
                    raise RuntimeError(f"no answer within {PATIENCE} s")
                more = os.read(self.process.stdout.fileno(), 1 << 16)
                if not more:
                    self.process.wait()
                    self.log.seek(0)
                    last = self.log.read().strip().splitlines()[-3:]
                    raise RuntimeError(f"ended with status {self.process.returncode}: {' / '.join(last) or 'nothing said'}")
                self.pending += more

    def turn(self, case, milliseconds):
        """Runs the case for about so long, and returns the answer, or {"error": …}."""
        try:
            if self.process is None:
                self.start()
            self.process.stdin.write(f"{case} {milliseconds:g}\n".encode())
            self.process.stdin.flush()
            answer = self.read()
        except (OSError, RuntimeError, ValueError) as problem:
            self.end(kill=True)
            return {"error": f"{self.name} {problem}"}
        time.sleep(PAUSE)
        return answer

    def end(self, kill=False):
        if self.process is None:
            return
        if kill:
            self.process.kill()
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.process = None


def build_libxsmm(folder, binary):
    """Compiles our small program on LIBXSMM-DNN's public interface. `folder` is LIBXSMM-DNN's, built, with LIBXSMM in `libxsmm`."""
    root = os.environ.get("LIBXSMMROOT", os.path.join(folder, "libxsmm"))
    archives = [os.path.join(folder, "lib", "libxsmm_dnn.a"), os.path.join(root, "lib", "libxsmm.a")]
    for file in archives:
        if not os.path.exists(file):
            raise FileNotFoundError(f"--libxsmm: no {file}; build both with 'make STATIC=1 BLAS=0 OMP=1'")
    subprocess.run(
        ["gcc", "-O2", "-fopenmp", "-I", os.path.join(folder, "include"), "-I", os.path.join(root, "include"),
         os.path.join(FOLDER, "libxsmm_batchnorm.c"), *archives, "-lm", "-lrt", "-ldl", "-lpthread", "-o", binary], check=True)
