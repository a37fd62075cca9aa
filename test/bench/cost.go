package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sentrymm/runsc-integration/sandbox"
	"sentrymm/test/bench/sample"
)

// costItems look at a program from outside.
func costItems(t *targets) []item {
	one := func(group, rows string, often int, w func(rs *[]sample.Result) watch) item {
		return item{group, rows, false, often, func(ctx context.Context, on *target, _ []string) ([]sample.Result, error) {
			var rs []sample.Result
			_, err := on.run(ctx, sandbox.Program(t.root, t.load, "-rows", rows), nil, w(&rs))
			return rs, err
		}}
	}
	return []item{one("cost", "cost/mappings-*", 3, watchSizes), one("cost", "cost/fixed-populate-1g", 1, watchPeak), one("hostops", "hostops", 1, watchHost)}
}

// next waits for the load program's next result.
func next(ctx context.Context, out <-chan string) (r sample.Result, ok bool, err error) {
	select {
	case line, open := <-out:
		if !open {
			return r, false, nil
		}
		return r, true, jsonUnmarshal([]byte(line), &r)
	case <-ctx.Done():
		return r, false, ctx.Err()
	}
}

// watchSizes measures how large the sandbox is, and how many mappings the host has of the application, each
// time the program waits.
func watchSizes(rs *[]sample.Result) watch {
	return func(ctx context.Context, pid int, in io.Writer, out <-chan string) error {
		for {
			r, ok, err := next(ctx, out)
			if !ok || err != nil {
				return err
			}
			name := strings.TrimPrefix(r.Row, "cost/")
			*rs = append(*rs,
				sample.Result{Row: "cost/rss-" + name, Value: float64(residentAnon(pid))},
				sample.Result{Row: "cost/host-" + name, Value: float64(hostMappings(pid))})
			if _, err := io.WriteString(in, "\n"); err != nil {
				return err
			}
		}
	}
}

// residentAnon is the process's own memory in bytes: what it shares with nobody. Memory of the application is
// none of it.
func residentAnon(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "RssAnon:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// hostMappings counts the mappings of the processes below pid with the most of them: the application's
// address space on the host. Natively that is the process itself.
func hostMappings(pid int) int {
	most := 0
	for _, p := range append(descendants(pid), pid) {
		if p == pid && len(descendants(pid)) > 0 {
			continue
		}
		maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p))
		most = max(most, strings.Count(string(maps), "\n"))
	}
	return most
}

func descendants(pid int) []int {
	var all []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		text, _ := os.ReadFile(file)
		for _, f := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(f); err == nil {
				all = append(append(all, n), descendants(n)...)
			}
		}
	}
	return all
}

// watchPeak measures how much memory the application has at most while a populated mapping is replaced by
// another. Memory of applications is shared memory on the host: of nobody else there is much on an idle machine.
func watchPeak(rs *[]sample.Result) watch {
	return func(ctx context.Context, pid int, in io.Writer, out <-chan string) error {
		if _, _, err := next(ctx, out); err != nil {
			return err
		}
		resident := func() int64 { return memoryFile(pid) }
		if memoryFile(pid) == 0 {
			resident = func() int64 { return residentAnon(pid) } // natively
		}
		var stop atomic.Bool
		peak := make(chan int64)
		go func() {
			most := int64(0)
			for !stop.Load() {
				most = max(most, resident())
				time.Sleep(time.Millisecond)
			}
			peak <- most
		}()
		_, err := io.WriteString(in, "\n")
		if err == nil {
			_, _, err = next(ctx, out)
		}
		stop.Store(true)
		*rs = append(*rs, sample.Result{Row: "cost/peak-fixed-populate-1g", Value: float64(<-peak)})
		return err
	}
}

// memoryFile is how many bytes the sandbox has in its memory file, 0 if there is none.
func memoryFile(pid int) int64 {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if name, _ := os.Readlink(fd); strings.Contains(name, "runsc-memory") {
			var st unix.Stat_t
			if unix.Stat(fd, &st) == nil {
				return st.Blocks * 512
			}
		}
	}
	return 0
}

// watchHost counts the host's memory calls, by way of its tracepoints.
func watchHost(rs *[]sample.Result) watch {
	return func(ctx context.Context, pid int, in io.Writer, out <-chan string) error {
		c, err := countCalls("mmap", "munmap", "mprotect", "madvise", "fallocate")
		if err != nil {
			return fmt.Errorf("counting the host's calls: %w", err)
		}
		defer c.close()
		before := uint64(0)
		for {
			r, ok, err := next(ctx, out)
			if !ok || err != nil {
				return err
			}
			now := c.count()
			if r.Ops != 0 {
				*rs = append(*rs, sample.Result{Row: r.Row, Value: float64(now-before) / float64(r.Ops)})
			}
			before = c.count()
			if _, err := io.WriteString(in, "\n"); err != nil {
				return err
			}
		}
	}
}

// calls counts system calls of all processes of the machine.
type calls struct{ fds []int }

func countCalls(names ...string) (*calls, error) {
	dir, err := os.MkdirTemp("", "sentrymm-trace-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := unix.Mount("none", dir, "tracefs", 0, ""); err != nil {
		return nil, fmt.Errorf("tracefs: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	c := &calls{}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, "events/syscalls/sys_enter_"+name, "id"))
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		for cpu := range runtime.NumCPU() {
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}
			attr.Size = uint32(unsafe.Sizeof(attr))
			fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("perf_event_open: %w", err), c.close())
			}
			c.fds = append(c.fds, fd)
		}
	}
	return c, nil
}

func (c *calls) count() (sum uint64) {
	for _, fd := range c.fds {
		var n uint64
		unix.Read(fd, unsafe.Slice((*byte)(unsafe.Pointer(&n)), 8))
		sum += n
	}
	return sum
}

func (c *calls) close() error {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	return nil
}
