package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var noContext = context.Background()

func TestWhatPassesAndSaysTheSamePasses(t *testing.T) {
	r := fakeRun(t, "", "-run=^(TestSame|TestSkipped|TestLast)$")
	require.NoError(t, r.err)
	require.True(t, r.ok)
	require.Equal(t, map[string]string{"TestSame": "passed", "TestSame/below": "passed", "TestSkipped": "skipped", "TestLast": "passed"}, r.results())
	require.Contains(t, r.out, "all as expected")
	require.Contains(t, r.out, "\nsyscalls: 2 passed, 0 failed, 1 skipped\n", "a test with others below it is not counted")
}

func TestFailureIsTheLeafsOnly(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestFails$")
	require.False(t, r.ok)
	require.Equal(t, map[string]string{"TestFails": "passed", "TestFails/well": "passed", "TestFails/badly": "failed"}, r.results())
	require.Contains(t, r.out, "FAILED: fake/TestFails/badly on systrap")
	require.Contains(t, r.out, "not as it should be")
	require.Contains(t, r.out, "syscalls: 1 passed, 1 failed, 0 skipped\n")
}

func TestTranscriptsThatDifferAreShownSideBySide(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestDiffers$")
	require.False(t, r.ok)
	require.Equal(t, map[string]string{"TestDiffers": "differs"}, r.results())
	require.Regexp(t, `line 19 +\| +\| line 19 +\n +\| ! \| only here +\n line 0 after +\| +\| line 0 after`, r.out)
	require.NotContains(t, r.out, "line 5\n", "only what is around the difference")
	found := r.find(t, "TestDiffers")
	require.Len(t, found.Native, 40)
	require.Len(t, found.Here, 41)
}

func TestSameDifferenceInTwoTargetsIsShownOnce(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestDiffers$", "-targets=systrap,ptrace")
	require.False(t, r.ok)
	require.Contains(t, r.out, "DIFFERS: fake/TestDiffers on systrap, ptrace: the transcripts differ")
	require.Equal(t, 1, strings.Count(r.out, "only here"))
	require.Contains(t, r.out, "NOT as expected: 0 tests failed, 2 differ")
}

func TestManyDifferencesAreCountedAndWithVShown(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestManyKilled$")
	require.Contains(t, r.out, "Not shown (-v shows all):\n  fake/TestManyKilled on systrap: 1 failed, 0 differ\n")
	require.NotContains(t, r.out, "FAILED: fake/TestManyKilled/family/2 on")
	r = fakeRun(t, "", "-run=^TestManyKilled$", "-v")
	require.Contains(t, r.out, "FAILED: fake/TestManyKilled/family/2 on")
}

func TestSkippedNativelyHasNothingToDifferFrom(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestSkippedOutside$", "-v")
	require.True(t, r.ok)
	require.Equal(t, map[string]string{"TestSkippedOutside": "skipped"}, r.results())
	require.Contains(t, r.out, "not on this machine")
}

func TestSkippedInsideOnlyDiffers(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestSkippedInside$")
	require.Equal(t, map[string]string{"TestSkippedInside": "passed", "TestSkippedInside/below": "differs"}, r.results(),
		"the test below the skipped one has no result of its own")
}

func TestNativeFailureFailsTheRun(t *testing.T) {
	t.Setenv("SEED", "native")
	r := fakeRun(t, "", "-run=^TestFailsNatively$")
	require.False(t, r.ok)
	require.Contains(t, r.out, "FAILED: fake/TestFailsNatively on native", "shown though it was not asked for")
	require.Contains(t, r.out, "on the machine itself")
}

func TestNativeFailureIsNeverKnown(t *testing.T) {
	t.Setenv("SEED", "native")
	r := fakeRun(t, `[{"test": "fake/TestFailsNatively", "targets": ["runsc"], "reason": "why not", "upstream": "unknown"}]`, "-run=^TestFailsNatively$")
	require.False(t, r.ok)
	require.Contains(t, r.out, "FAILED: fake/TestFailsNatively on native")
}

func TestCrashDoesNotLoseOtherTests(t *testing.T) {
	r := fakeRun(t, "", "-run=^(TestSame|TestKilled|TestPanics|TestLast)$")
	require.False(t, r.ok)
	require.Equal(t, map[string]string{
		"TestSame": "passed", "TestSame/below": "passed",
		"TestKilled": "passed", "TestKilled/before": "passed", "TestKilled/now/here_(1)": "failed", "TestKilled/after": "passed",
		"TestPanics": "passed", "TestPanics/deep": "passed", "TestPanics/deep/down": "failed", "TestPanics/after": "passed",
		"TestLast": "passed",
	}, r.results())
	require.Contains(t, r.find(t, "TestKilled/now/here_(1)").Why, "the program ended in it: exit status 137")
	require.Contains(t, r.find(t, "TestPanics/deep/down").Output, "panic: in the deep [recovered, repanicked]")
	require.NotContains(t, strings.Join(r.find(t, "TestPanics/deep/down").Output, "\n"), "| before", "that was another test")
}

func TestManyCrashesInOneTestDoNotLoseOthers(t *testing.T) {
	r := fakeRun(t, "", "-run=^(TestManyKilled|TestLast)$")
	require.Equal(t, map[string]string{
		"TestManyKilled": "passed", "TestManyKilled/family": "failed", "TestManyKilled/other": "passed",
		"TestManyKilled/family/0": "failed", "TestManyKilled/family/1": "failed", "TestManyKilled/family/2": "failed",
		"TestLast": "passed",
	}, r.results())
	require.Contains(t, r.find(t, "TestManyKilled/family").Why, "given up")
}

func TestHangFailsTheTestThatHangs(t *testing.T) {
	r := fakeRun(t, "", "-run=^(TestHangs|TestLast)$", "-timeout=1s")
	require.Equal(t, map[string]string{
		"TestHangs": "passed", "TestHangs/before": "passed", "TestHangs/now": "failed", "TestLast": "passed",
	}, r.results())
	require.Contains(t, r.find(t, "TestHangs/now").Why, "out of time")
}

func TestSecondHangEndsTheSuite(t *testing.T) {
	r := fakeRun(t, "", "-run=^(TestSame|TestHangs|TestHangsToo|TestLast)$", "-timeout=1s")
	require.False(t, r.ok)
	require.Contains(t, r.out, "PROBLEM: fake on systrap: given up after 2 starts, 2 out of time: tests are missing")
	require.Equal(t, "failed", r.results()["TestHangsToo"])
	require.NotContains(t, r.results(), "TestLast", "the problem stands for all that did not run")
}

func TestExitStatusWithoutFailedTestFails(t *testing.T) {
	t.Setenv("SEED", "exit")
	r := fakeRun(t, "", "-run=^TestLast$")
	require.False(t, r.ok)
	require.Contains(t, r.out, "PROBLEM: fake on systrap: no test failed, but exit status 7")
}

func TestProgramThatIsNoSuiteFails(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	for script, want := range map[string]string{"exit 3": "suite fake: ", "echo Example": "suite fake has no test"} {
		require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
		_, err := command(t.Context(), append(fakeArgs(t, ""), "-bin=fake="+program), t.Output())
		require.ErrorContains(t, err, want)
	}
}

func TestRunThatMatchesNoTestFails(t *testing.T) {
	r := fakeRun(t, "", "-run=^TestNothing$")
	require.False(t, r.ok)
	require.Contains(t, r.out, `PROBLEM: no test ran: none matches -run "^TestNothing$"`)
}

// kvm may be missing on a machine. What has to be there is not.
func TestPlatformThatDoesNotComeUp(t *testing.T) {
	broken := func(t *testing.T, target string) ran {
		args := []string{"-targets=native," + target, "-run=^TestSame$"}
		fakeArgs(t, "")
		return fakeRun(t, "", append(args, "-runsc="+filepath.Join(fakeFolder, "runsc-broken"))...)
	}
	r := broken(t, kvm)
	require.True(t, r.ok)
	require.Contains(t, r.out, "kvm: no container comes up on platform kvm on this machine (exit status 5)\nthis platform is broken")
	require.Contains(t, r.json.Targets[1].Down, "no container comes up")
	r = broken(t, ptrace)
	require.False(t, r.ok)
	require.Contains(t, r.out, "PROBLEM: ptrace: no container comes up")
}

func TestUnmodifiedRunscMayDiffer(t *testing.T) {
	r := fakeRun(t, "", "-run=^(TestDiffers|TestFails)$", "-targets=stock")
	require.True(t, r.ok)
	require.Equal(t, "differs", r.results()["TestDiffers"])
	require.Equal(t, "failed", r.results()["TestFails/badly"])
	require.Contains(t, r.out, "only here", "it is shown")
}

func TestShardsRunEveryTestOnce(t *testing.T) {
	status := filepath.Join(t.TempDir(), "status")
	t.Setenv("TEST_SHARD_STATUS_FILE", status)
	t.Setenv("TEST_TOTAL_SHARDS", "3")
	times := map[string]int{}
	for _, index := range []string{"0", "1", "2"} {
		t.Setenv("TEST_SHARD_INDEX", index)
		r := fakeRun(t, "", "-run=^(TestSame|TestDiffers|TestLast|TestSkipped|TestKilled)$")
		for name := range r.results() {
			times[name]++
		}
		require.FileExists(t, status)
	}
	for name, n := range times {
		require.Equal(t, 1, n, name)
	}
	require.Len(t, times, 9)
}

func TestShardThatIsNoneIsRefused(t *testing.T) {
	t.Setenv("TEST_TOTAL_SHARDS", "3")
	t.Setenv("TEST_SHARD_INDEX", "3")
	_, err := parse(nil, t.Output())
	require.ErrorContains(t, err, "is no shard")
}

func TestExitStatuses(t *testing.T) {
	args := fakeArgs(t, "")
	for want, more := range [][]string{{"-run=^TestSame$"}, {"-run=^TestDiffers$"}, {"-targets=abacus"}} {
		cmd := exec.Command(filepath.Join(fakeFolder, "runner"), append(args, more...)...)
		cmd.Dir = t.TempDir()
		cmd.Env = []string{"PATH=/nowhere"} // neither the repository nor Go is needed
		out, _ := cmd.CombinedOutput()
		require.Equal(t, want, cmd.ProcessState.ExitCode(), "%s", out)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-targets=native"}, "is not in the sentrymm checkout: go there, or name"},
		{[]string{"-targets=native", "-bin=x=/nowhere"}, "-bin x=/nowhere: lstat /nowhere: no such file"},
		{[]string{"-targets=native", "-bin=x=" + os.Args[0], "-suites=y"}, `no program for suite "y": name it with -bin y=PATH`},
		{[]string{"-targets=abacus"}, `no target "abacus": there are native and systrap, ptrace`},
		{[]string{"-run=("}, "-run: error parsing regexp"},
		{[]string{"mmap"}, `unknown argument "mmap"`},
		{[]string{"-targets=native", "-timeout=1ms"}, "-timeout 1ms: want a second or more"},
	} {
		_, err := command(t.Context(), c.args, t.Output())
		require.ErrorContains(t, err, c.want)
	}
}
