package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// inFolder makes a folder the working directory and puts files into it.
func inFolder(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, []byte(content), 0o444))
	}
}

func TestCommandSeesDeclaredFilesOnly(t *testing.T) {
	inFolder(t, map[string]string{
		"declared": "one", "elsewhere/two": "two", "undeclared": "three",
		"list": "declared\npkg/two=elsewhere/two\n",
	})
	require.NoError(t, build([]string{"-files=list", "-out=made", "--", "sh", "-c", "find . -type f | sort | xargs cat >{out}; find . -type f | sort >>{out}"}))
	made, err := os.ReadFile("made")
	require.NoError(t, err)
	require.Equal(t, "onetwo./declared\n./pkg/two\n", string(made))
	require.NoDirExists(t, "made.tree")
}

// What a command does to its copies is nobody else's business.
func TestCommandCannotChangeTheOriginals(t *testing.T) {
	inFolder(t, map[string]string{"original": "as it was", "list": "linked=link\n"})
	require.NoError(t, os.Symlink("original", "link"))
	require.NoError(t, build([]string{"-files=list", "-out=made", "--", "sh", "-c", "echo changed >linked && cp linked {out}"}))
	original, err := os.ReadFile("original")
	require.NoError(t, err)
	require.Equal(t, "as it was", string(original))
}

func TestCommandIsInNoGitRepository(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git here")
	}
	inFolder(t, map[string]string{"list": ""})
	out, err := exec.Command("git", "init", "-q").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, build([]string{"-files=list", "-out=made", "--", "sh", "-c", "! git rev-parse 2>{out}"}))
}

func TestFailedCommandIsAFailure(t *testing.T) {
	inFolder(t, map[string]string{"list": ""})
	var exit *exec.ExitError
	require.ErrorAs(t, build([]string{"-files=list", "-out=made", "--", "sh", "-c", "exit 3"}), &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.NoDirExists(t, "made.tree")
	require.ErrorContains(t, build([]string{"-files=list", "-out=made", "--", "true"}), "true made no file")
	require.ErrorContains(t, build([]string{"-files=list", "-out=made", "--", "no-such-program"}), "no-such-program")
}

func TestListOutsideOfTheTreeIsRefused(t *testing.T) {
	for _, at := range []string{"../up", "/etc/passwd", "a/../../up"} {
		inFolder(t, map[string]string{"list": at + "=list\n"})
		_, err := readList("list")
		require.ErrorContains(t, err, "is not a file of this repository")
	}
}
