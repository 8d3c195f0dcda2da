# SPDX-License-Identifier: GPL-2.0-or-later
"""Run unittest cases with TAP output, the format of QEMU's other tests.

usage: tap.py DIRECTORY NAME...     the cases of several modules, in one process:
                                    MODULE, MODULE.CLASS or MODULE.CLASS.METHOD
"""

import sys
import time
import unittest


class _Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.number = 0
        self.bad_subtests = self.reported = False
        self.begin = time.monotonic()

    def startTest(self, test):
        super().startTest(test)
        self.bad_subtests = self.reported = False
        self.begin = time.monotonic()

    def _line(self, status, test, note=''):
        self.number += 1
        seconds = time.monotonic() - self.begin
        print(f'{status} {self.number} {test.id().split(".", 1)[-1].rstrip(")")}{note}\n'
              f'# {seconds:.1f} s', flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._line('ok', test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._line('ok', test, f' # SKIP {reason}')

    def _bad(self, test, err):
        # What fails after the case has failed is no case of its own.
        if not self.reported:
            self._line('not ok', test)
        self.reported = True
        self._explain(test, err)

    def _explain(self, test, err):
        text = self._exc_info_to_string(err, test)
        print(f'# FAILED: {err[1]}'.splitlines()[0])
        for line in text.splitlines():
            print(f'# {line}')

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self.bad_subtests = True
            self._explain(subtest, err)

    def stopTest(self, test):
        super().stopTest(test)
        if self.bad_subtests and not self.reported:
            self._line('not ok', test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._bad(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._bad(test, err)


def _run(suite):
    result = _Result()
    suite.run(result)
    # A class that is skipped, or cannot be set up, is one line.
    print(f'1..{result.number}')
    sys.exit(0 if result.wasSuccessful() else 1)


def main():
    """In place of unittest.main()."""
    names = sys.argv[1:]
    loader = unittest.defaultTestLoader
    _run(loader.loadTestsFromNames(names, sys.modules['__main__']) if names else
         loader.loadTestsFromModule(sys.modules['__main__']))


if __name__ == '__main__':
    sys.path[0] = sys.argv[1]
    _run(unittest.defaultTestLoader.loadTestsFromNames(sys.argv[2:]))
