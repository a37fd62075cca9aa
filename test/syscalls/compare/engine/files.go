package main

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
)

// openHandles opens the files that the program uses. Their names are gone when it begins.
func (s *session) openHandles(a *actor) error {
	for h := range s.handles {
		s.handles[h] = -1
	}
	uses := s.program.UsesHandle
	if uses(program.Disk) || uses(program.DiskRead) {
		err := s.openNamed(a, folder("KIT_DIR", os.TempDir()), "disk", map[program.Handle]int{program.Disk: unix.O_RDWR, program.DiskRead: unix.O_RDONLY})
		if err != nil {
			return err
		}
	}
	if uses(program.Tmpfs) {
		if err := s.openNamed(a, folder("KIT_TMPFS", "/dev/shm"), "tmpfs", map[program.Handle]int{program.Tmpfs: unix.O_RDWR}); err != nil {
			return err
		}
	}
	for h, flags := range map[program.Handle]int{program.Memfd: unix.MFD_ALLOW_SEALING, program.Sealed: 0} {
		if uses(h) {
			if err := s.openMemfd(a, h, flags); err != nil {
				return err
			}
		}
	}
	if uses(program.Zero) {
		if err := s.open(a, program.Zero, "/dev/zero", unix.O_RDWR); err != nil {
			return err
		}
	}
	if uses(program.PipeRead) || uses(program.PipeWrite) {
		return s.openPipe(a)
	}
	return nil
}

func folder(variable, otherwise string) string {
	if dir := os.Getenv(variable); dir != "" {
		return dir
	}
	return otherwise
}

// openNamed makes a file in a folder and opens it for each handle.
func (s *session) openNamed(a *actor, dir, name string, handles map[program.Handle]int) error {
	// A folder of our own, so that the last part of the name is the same everywhere.
	dir, err := os.MkdirTemp(dir, "compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, fileContents(), 0o600); err != nil {
		return err
	}
	for h, flags := range handles {
		if err := s.open(a, h, path, flags); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) open(a *actor, h program.Handle, path string, flags int) error {
	const here = -100 // AT_FDCWD
	at := here
	fd, err := a.call(unix.SYS_OPENAT, uintptr(at), a.put(0, append([]byte(path), 0)), uintptr(flags|unix.O_CLOEXEC), 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	s.handles[h] = int(fd)
	return nil
}

func (s *session) openMemfd(a *actor, h program.Handle, flags int) error {
	fd, err := a.call(unix.SYS_MEMFD_CREATE, a.put(0, []byte("kit\x00")), uintptr(flags))
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	s.handles[h] = int(fd)
	if _, err := a.call(unix.SYS_PWRITE64, fd, bufferBase, bufferSize, 0); err != nil {
		return fmt.Errorf("writing to a memfd: %w", err)
	}
	return nil
}

func (s *session) openPipe(a *actor) error {
	if _, err := a.call(unix.SYS_PIPE2, a.putWords(0, 0), unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe2: %w", err)
	}
	ends := a.word(0)
	s.handles[program.PipeRead], s.handles[program.PipeWrite] = int(uint32(ends)), int(ends>>32)
	// Linux counts the pages of a pipe, the sentry (kernel/pipe) its bytes: so it does not get full.
	if _, err := a.call(unix.SYS_FCNTL, uintptr(ends>>32), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		return fmt.Errorf("making a pipe larger: %w", err)
	}
	return nil
}
