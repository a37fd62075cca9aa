package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	cgroupRoot   = "/sys/fs/cgroup"
	cgroup2Magic = 0x63677270 // CGROUP2_SUPER_MAGIC
)

// neededControllers are the version 1 hierarchies that runsc cannot do without where there are any.
var neededControllers = []string{"cpu", "memory"}

// cgroupsUsable says whether runsc can put a container into a cgroup of its own on this machine, and
// if not, why. It tries, since a mounted hierarchy can still be read-only or belong to somebody else.
func cgroupsUsable(root string) error {
	var fs2 syscall.Statfs_t
	if err := syscall.Statfs(root, &fs2); err != nil {
		return fmt.Errorf("no cgroups at %s: %w", root, err)
	}
	if fs2.Type == cgroup2Magic {
		return tryCgroup(root)
	}
	for _, controller := range neededControllers {
		dir := filepath.Join(root, controller)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no %s cgroup at %s", controller, dir)
		}
		if err := tryCgroup(dir); err != nil {
			return err
		}
	}
	return nil
}

func tryCgroup(parent string) error {
	dir := filepath.Join(parent, fmt.Sprintf("sentrymm-try-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make a cgroup: %w", err)
	}
	return os.Remove(dir)
}
