package main

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"testing"

	"github.com/jstemmer/go-junit-report/v2/junit"
	"github.com/stretchr/testify/require"
)

func TestJUnitReportIsWellFormed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "junit.xml")
	known := `[{"test": "fake/TestDiffers", "targets": ["runsc"], "reason": "for a test", "upstream": "unknown"},
		{"test": "fake/TestGone", "targets": ["runsc"], "reason": "for a test", "upstream": "unknown"}]`
	fakeRun(t, known, "-run=^(TestSame|TestDiffers|TestFails|TestSkipped|TestPanics)$", "-junit="+file)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var suites junit.Testsuites
	require.NoError(t, xml.Unmarshal(data, &suites))
	require.Len(t, suites.Suites, 2)
	require.Equal(t, "fake.systrap", suites.Suites[0].Name)
	require.Equal(t, 2, suites.Suites[0].Failures)
	cases := map[string]junit.Testcase{}
	for _, c := range suites.Suites[0].Testcases {
		cases[c.Name] = c
	}
	require.Len(t, cases, 7, "%v", cases)
	require.Nil(t, cases["TestSame/below"].Failure)
	require.Contains(t, cases["TestFails/badly"].Failure.Data, "not as it should be")
	require.Contains(t, cases["TestDiffers"].Skipped.Data, "known difference: for a test")
	require.NotNil(t, cases["TestSkipped"].Skipped)
	require.Equal(t, "problems", suites.Suites[1].Name)
	require.Contains(t, suites.Suites[1].Testcases[0].Failure.Data, `"fake/TestGone": there is no such test`)
}

func TestUnmodifiedRunscFailsNoJUnitTest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "junit.xml")
	require.True(t, fakeRun(t, "", "-run=^TestDiffers$", "-targets=stock", "-junit="+file).ok)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	var suites junit.Testsuites
	require.NoError(t, xml.Unmarshal(data, &suites))
	require.Equal(t, 1, suites.Tests)
	require.Zero(t, suites.Failures)
}

func TestSuitesAreFoundByTheirUseOfKit(t *testing.T) {
	repository := t.TempDir()
	for file, text := range map[string]string{
		"go.mod":                            "module sentrymm\n\ngo 1.26\n",
		"test/syscalls/kit/kit.go":          "package kit\n",
		"test/syscalls/kit/kit_test.go":     "package kit_test\nimport _ \"sentrymm/test/syscalls/kit\"\n",
		"test/syscalls/one/one_test.go":     "package one\nimport _ \"sentrymm/test/syscalls/kit\"\nimport \"testing\"\nfunc TestX(*testing.T) {}\n",
		"test/syscalls/two/two_test.go":     "package two_test\nimport _ \"sentrymm/test/syscalls/kit\"\n",
		"test/syscalls/none/none_test.go":   "package none\n",
		"test/syscalls/compare/fuzz.go":     "package compare\n",
		"test/syscalls/compare/fz_test.go":  "package compare\nimport _ \"sentrymm/test/syscalls/kit\"\n",
		"test/syscalls/runner/main.go":      "package main\n",
		"test/syscalls/runner/main_test.go": "package main\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(repository, filepath.Dir(file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(repository, file), []byte(text), 0o644))
	}
	found, err := discover(t.Context(), repository, nil)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "one", found[0].name)
	require.Equal(t, "two", found[1].name)

	require.NoError(t, build(t.Context(), repository, found[:1]))
	require.NoError(t, found[0].list(t.Context()))
	require.Equal(t, []string{"TestX"}, found[0].tests)

	_, err = discover(t.Context(), repository, []string{"three"})
	require.ErrorContains(t, err, `-suites: no suite "three"`)
	_, err = discover(t.Context(), repository, []string{"none"})
	require.ErrorContains(t, err, "have tests that import sentrymm/test/syscalls/kit")
}
