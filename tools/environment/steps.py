"""Runs the commands that make the environment and shows how far they are."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

from environment.checks import EnvError, explain

WIDTH = 79


def minutes(seconds):
    whole, rest = divmod(round(seconds), 60)
    return f'{whole}:{rest:02}'


class Progress:
    """The line of one step: rewritten on a terminal, repeated now and then in a log."""

    def __init__(self, title):
        self.title = title
        self.terminal = sys.stdout.isatty()
        self.begin = self.shown = time.monotonic()
        self.compiling_since = None
        self.state = ''
        self.show('...')

    def show(self, text, last=False):
        line = f'{self.title}: {text}'[:WIDTH]
        if self.terminal:
            print('\r' + line.ljust(WIDTH), end='\n' if last else '', flush=True)
        else:
            print(line, flush=True)

    def read(self, line, now):
        """Takes the state of the step from a line of pip's or ninja's output."""
        compiled = re.match(r'\s*\[(\d+)/(\d+)\]', line)
        pip = re.match(r'\s*(Collecting \S+|Downloading \S+|Installing)', line)
        if compiled:
            done, total = int(compiled.group(1)), int(compiled.group(2))
            self.state = f'{done} of {total} files'
            if self.compiling_since is None:
                self.compiling_since = (done, now)
            first, since = self.compiling_since
            # The first few, all begun at once, say nothing of the rate.
            if done - first >= 4:
                left = (now - since) * (total - done) / (done - first)
                self.state += f', about {minutes(left)} left'
        elif pip:
            self.state = pip.group(1)

    def tick(self):
        now = time.monotonic()
        if now - self.shown >= (1 if self.terminal else 20):
            self.shown = now
            self.show(f'{minutes(now - self.begin)}  {self.state}')

    def finish(self, how):
        self.show(f'{how}, {minutes(time.monotonic() - self.begin)}', last=True)


def run(title, command, log, env=None, cwd=None):
    """Runs a step: its output goes to the log, its progress to the screen."""
    progress, output = Progress(title), []
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        env=env,
        cwd=cwd and str(cwd),
        close_fds=False,  # what outlives a killed script keeps the lock
        start_new_session=True,
    )

    def listen():
        with open(str(log), 'a') as file:
            for line in process.stdout:
                file.write(line)
                output.append(line)
                progress.read(line, time.monotonic())

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        while listener.is_alive():
            listener.join(0.2)
            progress.tick()
    except BaseException:
        # The compilers too: they would go on writing into the environment.
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        progress.finish('interrupted')
        raise
    if process.wait():
        progress.finish('failed')
        reason = explain(title, ''.join(output))
        raise EnvError(f'{reason}\n(the whole output is in {log})')
    progress.finish('done')
