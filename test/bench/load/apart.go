package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// elsewhere begins the storm in a process of its own, which shares nothing with this one but the scene. It returns
// that, and what waits for the storm's end.
func (s storm) elsewhere() (*scene, func()) {
	fd := memfd(page)
	shared := os.NewFile(uintptr(fd), "scene")
	defer shared.Close()
	p := mapScene(fd)
	self, err := os.Executable()
	check(err, "finding the program")
	cmd := exec.Command(self, "-storm", s.name)
	cmd.ExtraFiles = []*os.File{shared}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	check(err, "a pipe")
	check(cmd.Start(), self)
	_, err = io.ReadFull(out, make([]byte, len(begun)))
	check(err, "the storm's beginning")
	return (*scene)(pointer(p)), func() {
		check(cmd.Wait(), "the storm")
		// The scene stays mapped: its numbers are there now.
	}
}

// begun is what a storm elsewhere says when it has.
const begun = "begun\n"

// sceneFile is the file that a process of elsewhere finds its scene in.
const sceneFile = 3

func mapScene(fd int) uintptr { return mmap(0, page, rw, unix.MAP_SHARED, fd, 0) }

// runElsewhere is what that process does.
func runElsewhere(name string) {
	for _, s := range append(storms(), scaleStorms()...) {
		if s.name == name {
			(*scene)(pointer(mapScene(sceneFile))).run(s, func() { io.WriteString(os.Stdout, begun) })
			return
		}
	}
	check(fmt.Errorf("there is no storm %s", name), "load")
}
