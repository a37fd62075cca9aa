package sandbox

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCgroupsThatCannotBeUsed(t *testing.T) {
	require.ErrorContains(t, cgroupsUsable(filepath.Join(t.TempDir(), "cgroup")), "no cgroups at")
	require.ErrorContains(t, cgroupsUsable(t.TempDir()), "no cpu cgroup at")
}

// Where cgroups cannot be used runsc is told so, and the user too.
func TestWithoutCgroupsRunscIgnoresThem(t *testing.T) {
	s, err := newAt(t.TempDir(), "runsc", "systrap")
	require.NoError(t, err)
	defer s.Close()
	require.Contains(t, s.flags, "--ignore-cgroups")
	require.Contains(t, s.note, "without cgroups: no cpu cgroup at ")
	require.Contains(t, s.flags, "--network=none")
}

func TestNoSpaceSaysWhatToDo(t *testing.T) {
	full := &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	require.ErrorContains(t, NoSpace(full, "/some/folder"), "make room below /some/folder")
	require.ErrorIs(t, NoSpace(full, "/some/folder"), syscall.ENOSPC)
	require.NoError(t, NoSpace(nil, "/some/folder"))
	require.Equal(t, syscall.EIO, NoSpace(syscall.EIO, "/some/folder"))
}

func TestContainersOfTwoSandboxesHaveTwoNames(t *testing.T) {
	ids := map[string]bool{}
	for range 2 {
		s, err := New("runsc", "systrap")
		require.NoError(t, err)
		defer s.Close()
		for range 2 {
			c, err := s.NewContainer(Program(t.TempDir(), "guest"))
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(c.Bundle(), "config.json"))
			ids[c.ID()] = true
		}
	}
	require.Len(t, ids, 4)
}
