package main

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// theirTests are compiled and run as Bazel would have it.
const theirTests = `package their

import (
	"os"
	"testing"
)

func TestPasses(t *testing.T)  { t.Run("inner", func(t *testing.T) {}); t.Log("all is well") }
func TestReads(t *testing.T)   { if _, err := os.ReadFile("testdata/declared"); err != nil { t.Fatal(err) } }
func TestSkips(t *testing.T)   { t.Skip("not here") }
func TestShards(t *testing.T)  { if os.Getenv("TEST_TOTAL_SHARDS") != "" { t.Error("Bazel's shards are not ours") } }
func TestSetting(t *testing.T) { if os.Getenv("SETTING") != "as declared" { t.Error("no setting") } }

func TestFails(t *testing.T) {
	if os.Getenv("FAIL") != "" {
		t.Run("inner", func(t *testing.T) { t.Error("bad <character>: \x01") })
	}
}

func TestDies(t *testing.T) {
	if os.Getenv("DIE") != "" {
		println("last words")
		os.Exit(7)
	}
}
`

// compile builds the tests above and test2json, and returns the flags of `steps test` for them.
func compile(t *testing.T) []string {
	t.Helper()
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	inFolder(t, map[string]string{
		"go.mod": "module their", "pkg/their_test.go": theirTests,
		"pkg/testdata/declared": "", "list": "pkg/testdata/declared\n",
	})
	for _, args := range [][]string{{"test", "-c", "-o", "their.test", "./pkg"}, {"build", "-o", "test2json", "cmd/test2json"}} {
		out, err := exec.Command(goCommand, args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	for _, variable := range []string{"XML_OUTPUT_FILE", "TEST_TMPDIR"} {
		t.Setenv(variable, filepath.Join(t.TempDir(), "made"))
	}
	require.NoError(t, os.Mkdir(os.Getenv("TEST_TMPDIR"), 0o755))
	for _, variable := range []string{"TEST_TOTAL_SHARDS", "TEST_SHARD_INDEX", "TEST_SHARD_STATUS_FILE", "TESTBRIDGE_TEST_ONLY", "TEST_TIMEOUT"} {
		t.Setenv(variable, "")
	}
	return []string{"-name=//pkg:their", "-dir=pkg", "-binary=their.test", "-test2json=test2json", "-files=list", "-env=SETTING=as declared"}
}

// results reads the file for Bazel: for each test what became of it, and what was said about that.
func results(t *testing.T) (became, said map[string]string) {
	t.Helper()
	data, err := os.ReadFile(os.Getenv("XML_OUTPUT_FILE"))
	require.NoError(t, err)
	var suites struct {
		Suites []xmlSuite `xml:"testsuite"`
	}
	require.NoError(t, xml.Unmarshal(data, &suites))
	require.Len(t, suites.Suites, 1)
	s := suites.Suites[0]
	became, said = map[string]string{}, map[string]string{}
	for _, c := range s.Cases {
		switch {
		case c.Failure != nil:
			became[c.Name], said[c.Name] = "fail", c.Failure.Text
		case c.Error != nil:
			became[c.Name], said[c.Name] = "error", c.Error.Text
		case c.Skipped != nil:
			became[c.Name], said[c.Name] = "skip", c.Skipped.Message
		default:
			became[c.Name] = "pass"
		}
	}
	require.Equal(t, len(became), s.Tests)
	return became, said
}

func allPass() map[string]string {
	return map[string]string{
		"TestPasses": "pass", "TestPasses/inner": "pass", "TestReads": "pass", "TestSkips": "skip",
		"TestShards": "pass", "TestSetting": "pass", "TestFails": "pass", "TestDies": "pass",
	}
}

func TestResultsAreReported(t *testing.T) {
	flags := compile(t)
	require.NoError(t, test(flags, t.Output()))
	became, said := results(t)
	require.Equal(t, allPass(), became)
	require.Contains(t, said["TestSkips"], "not here")
	left, err := os.ReadDir(os.Getenv("TEST_TMPDIR"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestFailureIsReported(t *testing.T) {
	flags := compile(t)
	t.Setenv("FAIL", "yes")
	var exit *exec.ExitError
	require.ErrorAs(t, test(flags, t.Output()), &exit)
	became, said := results(t)
	want := allPass()
	want["TestFails"], want["TestFails/inner"] = "fail", "fail"
	require.Equal(t, want, became)
	require.Contains(t, said["TestFails/inner"], "bad <character>: ")
}

func TestDeathIsReported(t *testing.T) {
	flags := compile(t)
	t.Setenv("DIE", "yes")
	var exit *exec.ExitError
	require.ErrorAs(t, test(flags, t.Output()), &exit)
	require.Equal(t, 7, exit.ExitCode())
	became, said := results(t)
	want := allPass()
	want["TestDies"] = "error"
	require.Equal(t, want, became)
	require.Contains(t, said["TestDies"], "last words")
}

func TestShardsTakeEachTestOnce(t *testing.T) {
	flags := compile(t)
	all := map[string]string{}
	for _, index := range []string{"0", "1", "2"} {
		status := filepath.Join(t.TempDir(), "status")
		t.Setenv("TEST_TOTAL_SHARDS", "3")
		t.Setenv("TEST_SHARD_INDEX", index)
		t.Setenv("TEST_SHARD_STATUS_FILE", status)
		require.NoError(t, test(flags, t.Output()))
		require.FileExists(t, status)
		became, _ := results(t)
		require.NotEmpty(t, became)
		for name, result := range became {
			require.NotContains(t, all, name)
			all[name] = result
		}
	}
	require.Equal(t, allPass(), all)
}

func TestFilterSelects(t *testing.T) {
	flags := compile(t)
	t.Setenv("TESTBRIDGE_TEST_ONLY", "TestPasses/inner")
	require.NoError(t, test(flags, t.Output()))
	became, _ := results(t)
	require.Equal(t, map[string]string{"TestPasses": "pass", "TestPasses/inner": "pass"}, became)
}

func TestTargetWithoutTestsFails(t *testing.T) {
	flags := compile(t)
	require.ErrorContains(t, test(append(flags, "--", "-test.run=NoSuchTest"), t.Output()), "no test")
}

// The tests that fail are shown, and what says more about all of them.
func TestWhatPassesIsNotShown(t *testing.T) {
	events := `{"Action":"start"}
{"Action":"output","Output":"loose\n"}
{"Action":"run","Test":"TestGood"}
{"Action":"output","Test":"TestGood","Output":"good\n"}
{"Action":"pass","Test":"TestGood","Elapsed":1}
{"Action":"run","Test":"TestBad"}
{"Action":"output","Test":"TestBad/inner","Output":"bad inside\n"}
{"Action":"fail","Test":"TestBad/inner"}
{"Action":"fail","Test":"TestBad"}
{"Action":"run","Test":"TestHung"}
{"Action":"output","Test":"TestHung","Output":"still here\n"}
`
	var text, verbose strings.Builder
	r, err := readEvents(strings.NewReader(events), &text, false)
	require.NoError(t, err)
	require.Equal(t, "loose\nbad inside\nstill here\n", text.String())
	require.Equal(t, ": 1 passed, 2 failed, 0 skipped, 1 did not end", r.summary())
	_, err = readEvents(strings.NewReader(events), &verbose, true)
	require.NoError(t, err)
	require.Equal(t, "loose\ngood\nbad inside\nstill here\n", verbose.String())
}
