package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const why = `"reason": "for a test"`

func TestKnownDifferenceIsExpected(t *testing.T) {
	r := fakeRun(t, `[{"test": "fake/TestDiffers", "targets": ["runsc"], `+why+`, "upstream": "unknown"},
		{"test": "fake/TestFails/badly", "targets": ["systrap"], `+why+`, "upstream": "unknown"}]`, "-run=^(TestDiffers|TestFails)$")
	require.True(t, r.ok)
	require.Equal(t, map[string]string{"TestDiffers": "known", "TestFails": "passed", "TestFails/well": "passed", "TestFails/badly": "known"}, r.results())
	require.Contains(t, r.out, "2 known differences")
}

func TestKnownInOneTargetIsNotExpectedInAnother(t *testing.T) {
	r := fakeRun(t, `[{"test": "fake/TestDiffers", "targets": ["ptrace"], `+why+`, "upstream": "unknown"}]`,
		"-run=^TestDiffers$", "-targets=systrap,ptrace")
	require.False(t, r.ok)
	require.Contains(t, r.out, "1 differ, 0 problems")
}

func TestEntryThatNoLongerDiffersFails(t *testing.T) {
	r := fakeRun(t, `[{"test": "fake/TestSame", "targets": ["runsc"], `+why+`, "upstream": "unknown"}]`, "-run=^TestSame$")
	require.False(t, r.ok)
	require.Contains(t, r.out, `"fake/TestSame": no longer differs on systrap: remove it`)
}

func TestEntryForAParentWhoseSubtestDiffersFails(t *testing.T) {
	r := fakeRun(t, `[{"test": "fake/TestFails", "targets": ["runsc"], `+why+`, "upstream": "unknown"}]`, "-run=^TestFails$")
	require.Contains(t, r.out, "FAILED: fake/TestFails/badly")
	require.Contains(t, r.out, `"fake/TestFails": no longer differs`)
}

func TestWideEntryCoversAllBelow(t *testing.T) {
	wide := `[{"test": "fake/TestManyKilled/...", "targets": ["systrap"], ` + why + `, "upstream": "unknown"}]`
	r := fakeRun(t, wide, "-run=^TestManyKilled$")
	require.True(t, r.ok)
	require.Equal(t, "known", r.results()["TestManyKilled/family"])
	require.Equal(t, "passed", r.results()["TestManyKilled/other"])

	wide = `[{"test": "fake/TestSame/...", "targets": ["systrap"], ` + why + `, "upstream": "unknown"}]`
	r = fakeRun(t, wide, "-run=^TestSame$")
	require.True(t, r.ok, "with -run it may be only a part that ran")
	t.Setenv("TEST_TOTAL_SHARDS", "1")
	t.Setenv("TEST_SHARD_INDEX", "0")
	r = fakeRun(t, wide, "-targets=native")
	require.True(t, r.ok, "the target did not run")
}

func TestEntryForATestThatDoesNotExistFails(t *testing.T) {
	gone := `[{"test": "fake/TestGone", "targets": ["runsc"], ` + why + `, "upstream": "unknown"}]`
	r := fakeRun(t, gone, "-run=^TestSame$")
	require.False(t, r.ok)
	require.Contains(t, r.out, `"fake/TestGone": there is no such test`)

	gone = `[{"test": "fake/TestSame/gone", "targets": ["ptrace"], ` + why + `, "upstream": "unknown"}]`
	r = fakeRun(t, gone, "-run=^TestSame$")
	require.True(t, r.ok, "with -run it may be a part that did not run")
	r = fakeRun(t, gone, "-targets=native")
	require.False(t, r.ok)
	require.Contains(t, r.out, `"fake/TestSame/gone": there is no such test`)
}

func TestEntriesOfOtherSuitesAreNotJudged(t *testing.T) {
	r := fakeRun(t, `[{"test": "other/TestX", "targets": ["runsc"], `+why+`, "upstream": "unknown"}]`, "-run=^TestSame$")
	require.True(t, r.ok)
}

func TestSkippedTestsSayNothingOfAnEntry(t *testing.T) {
	r := fakeRun(t, `[{"test": "fake/TestSkipped", "targets": ["runsc"], `+why+`, "upstream": "unknown"}]`, "-run=^TestSkipped$")
	require.True(t, r.ok)
}

// What an entry says of an unmodified runsc is checked where one was asked for.
func TestUpstreamIsChecked(t *testing.T) {
	entry := func(test, upstream string) string {
		return `[{"test": "` + test + `", "targets": ["systrap"], ` + why + `, "upstream": "` + upstream + `"}]`
	}
	for _, c := range []struct {
		known, problem string
	}{
		{entry("fake/TestDiffers", "differs"), ""},
		{entry("fake/TestDiffers", "unknown"), ""},
		{entry("fake/TestDiffers", "same"), `it differs on stock too: say "differs"`},
		{entry("fake/TestSame", "differs"), `it does not differ on stock: say "same"`},
		{entry("fake/TestSame", "same"), ""},
	} {
		r := fakeRun(t, c.known, "-run=^(TestDiffers|TestSame)$", "-targets=stock")
		require.Equal(t, c.problem == "", r.ok)
		require.Contains(t, r.out, c.problem)
	}
}

func TestMalformedEntriesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "want a list of objects",
		`[{"test": "a/TestA", "targets": ["runsc"], "reason": "r", "upstream": "same", "until": "x"}]`: "unknown field",
		`[{"test": "a/TestA", "targets": ["runsc"], "reason": " ", "upstream": "same"}]`:               "without a reason",
		`[{"test": "a/TestA", "targets": ["abacus"], "reason": "r", "upstream": "same"}]`:              `no target "abacus"`,
		`[{"test": "a/TestA", "targets": [], "reason": "r", "upstream": "same"}]`:                      "name at least one",
		`[{"test": "a/TestA", "targets": ["runsc"], "reason": "r", "upstream": "maybe"}]`:              "want differs, same or unknown",
		`[{"test": "TestA", "targets": ["runsc"], "reason": "r", "upstream": "same"}]`:                 "want SUITE/TestNAME",
		`[{"test": "a/TestA", "targets": ["systrap", "systrap"], "reason": "r", "upstream": "same"}]`:  "two entries for target systrap",
		`[] []`: "something after the list",
	} {
		file := filepath.Join(t.TempDir(), "known.json")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		_, err := readKnown(file)
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, file)
	}
}
