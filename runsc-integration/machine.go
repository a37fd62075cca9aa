package main

import (
	"context"
	"errors"
	"fmt"
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// architectures are the ones gVisor's sentry runs on.
var architectures = []string{"amd64", "arm64"}

func checkOS(goos string) error {
	if goos != "linux" {
		return fmt.Errorf("this is %s: runsc needs Linux (build with GOOS=linux only to look at the code)", goos)
	}
	return nil
}

func checkArch(arch string) error {
	if !slices.Contains(architectures, arch) {
		return fmt.Errorf("architecture %s: gVisor supports %s only", arch, strings.Join(architectures, " and "))
	}
	return nil
}

func checkRoot(euid int) error {
	if euid != 0 {
		return fmt.Errorf("user id is %d: running containers needs root (namespaces, chroot); run this with sudo", euid)
	}
	return nil
}

// checkGo says whether the go command on the PATH can build the module that goMod belongs to.
func checkGo(ctx context.Context, wanted string) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOVERSION").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("no go command on the PATH: install Go %s or newer (https://go.dev/dl)", wanted)
	}
	if err != nil {
		return fmt.Errorf("go env GOVERSION: %w", err)
	}
	// A custom toolchain appends a suffix after a space or a dash.
	found := strings.FieldsFunc(string(out), func(r rune) bool { return r == ' ' || r == '-' || r == '\n' })
	if len(found) == 0 || version.Compare(found[0], "go"+wanted) < 0 {
		return fmt.Errorf("the go command is %s, too old: go.mod wants Go %s or newer (https://go.dev/dl)", strings.TrimSpace(string(out)), wanted)
	}
	return nil
}

// checkSpace says whether a file system has room for need bytes more below dir, which need not exist.
func checkSpace(dir string, need uint64, what string) error {
	for {
		var fs syscall.Statfs_t
		err := syscall.Statfs(dir, &fs)
		if err == nil {
			if free := fs.Bavail * uint64(fs.Bsize); free < need {
				return fmt.Errorf("%s: %d MiB free, %s needs %d MiB: make room or point it elsewhere", dir, free>>20, what, need>>20)
			}
			return nil
		}
		if !os.IsNotExist(err) || dir == filepath.Dir(dir) {
			return fmt.Errorf("free space of %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}
