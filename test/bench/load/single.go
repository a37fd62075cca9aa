package main

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sentrymm/test/bench/sample"
)

// An op is an operation to time. before, if there is one, is done each time and not timed.
type op struct {
	before func()
	do     func()
}

// A single is an operation that one thread does, with nothing else going on.
type single struct {
	watcher
	fewest int64 // how often at least
}

// repeat times a single until the row's time is over.
func (b *bench) repeat(s single) {
	o, end := s.begin()
	defer end()
	r := sample.NewRecorder()
	begun := time.Now()
	var timed time.Duration
	for i := int64(-1); i < s.fewest || time.Since(begun) < b.time; i++ {
		if o.before != nil {
			o.before()
		}
		t := time.Now()
		o.do()
		if d := time.Since(t); i >= 0 { // the first is for warming up
			r.Add(d)
			timed += d
		}
	}
	b.say(r.Result(b.row, timed))
}

func singles() []single {
	return []single{
		{watcher{"getppid", getppid}, 1000},
		{watcher{"mmap-touch-munmap-64k", func() (op, func()) { return mapTouchUnmap(64 * kib), nothing }}, 20},
		{watcher{"mmap-touch-munmap-4m", func() (op, func()) { return mapTouchUnmap(4 * mib), nothing }}, 5},
		{watcher{"fixed-anon-over-anon-64k", fixedAnonOverAnon}, 20},
		{watcher{"fixed-file-over-file-64k", fixedFileOverFile}, 20},
		{watcher{"fixed-anon-over-file-64k", fixedAnonOverFile}, 20},
		{watcher{"mprotect-flip-64k", mprotectFlip}, 20},
		{watcher{"mremap-move-64k", mremapMove}, 20},
		{watcher{"mremap-grow-64k", mremapGrow}, 20},
		{watcher{"dontneed-touch-64k", dontneedTouch}, 20},
		{watcher{"brk-up-down-64k", brkUpDown}, 20},
		{watcher{"first-touch", firstTouch}, 100},
		{watcher{"fork-exec", forkExec}, 3},
		{watcher{"fork-exit-1g", forkExit}, 3},
		{watcher{"munmap-1g", unmapMuch}, 2},
	}
}

func singleRows() []row {
	var rows []row
	for _, s := range singles() {
		rows = append(rows, row{"single/" + s.name, func(b *bench) { b.repeat(s) }})
	}
	return rows
}

func nothing() {}

func getppid() (op, func()) {
	return op{do: func() { syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }}, nothing
}

func unmapMuch() (op, func()) {
	var p uintptr
	return op{
		before: func() { p = mapAnon(gib, unix.MAP_POPULATE) },
		do:     func() { munmap(p, gib) },
	}, nothing
}

func dontneedTouch() (op, func()) {
	p := mapAnon(64*kib, unix.MAP_POPULATE)
	return op{do: func() {
		madvise(p, 64*kib, unix.MADV_DONTNEED)
		touch(p, 64*kib, page)
	}}, func() { munmap(p, 64*kib) }
}

func brkUpDown() (op, func()) {
	start := brk(0)
	return op{do: func() {
		brk(start + 64*kib)
		touch((start+page-1)&^(page-1), 60*kib, page)
		brk(start)
	}}, nothing
}

func firstTouch() (op, func()) {
	f := newFaulter()
	return op{before: f.next, do: f.fault}, f.close
}

func forkExit() (op, func()) {
	p := mapAnon(gib, unix.MAP_POPULATE)
	return op{
		// So that there is something to protect again.
		before: func() { touch(p, gib, 2*mib) },
		do:     func() { fork(nil, nil) },
	}, func() { munmap(p, gib) }
}

func mapTouchUnmap(length uintptr) op {
	return op{do: func() {
		p := mapAnon(length, 0)
		touch(p, length, page)
		munmap(p, length)
	}}
}

// Replacing is timed, populating is not.

func fixedAnonOverAnon() (op, func()) {
	p := mapAnon(64*kib, 0)
	return op{
		before: func() { touch(p, 64*kib, page) },
		do:     func() { mmap(p, 64*kib, rw, anon|unix.MAP_FIXED, -1, 0) },
	}, func() { munmap(p, 64*kib) }
}

func fixedFileOverFile() (op, func()) {
	fd := memfd(128 * kib)
	p := mmap(0, 64*kib, rw, unix.MAP_SHARED, fd, 0)
	off := int64(0)
	return op{
		before: func() { touch(p, 64*kib, page) },
		do: func() {
			off ^= 64 * kib
			mmap(p, 64*kib, rw, unix.MAP_SHARED|unix.MAP_FIXED, fd, off)
		},
	}, func() { munmap(p, 64*kib); unix.Close(fd) }
}

func fixedAnonOverFile() (op, func()) {
	fd := memfd(64 * kib)
	p := mapAnon(64*kib, 0)
	return op{
		before: func() {
			mmap(p, 64*kib, rw, unix.MAP_SHARED|unix.MAP_FIXED, fd, 0)
			touch(p, 64*kib, page)
		},
		do: func() { mmap(p, 64*kib, rw, anon|unix.MAP_FIXED, -1, 0) },
	}, func() { munmap(p, 64*kib); unix.Close(fd) }
}

func mprotectFlip() (op, func()) {
	p := mapAnon(64*kib, unix.MAP_POPULATE)
	return op{do: func() {
		mprotect(p, 64*kib, unix.PROT_READ)
		mprotect(p, 64*kib, rw)
		store(p)
	}}, func() { munmap(p, 64*kib) }
}

func mremapMove() (op, func()) {
	p := mapAside(128*kib, unix.MAP_POPULATE)
	from, to := p, p+64*kib
	return op{do: func() {
		mremap(from, 64*kib, 64*kib, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, to)
		store(to)
		from, to = to, from
	}}, func() { munmap(p, 128*kib) }
}

func mremapGrow() (op, func()) {
	p := mapAside(128*kib, 0)
	munmap(p+64*kib, 64*kib)
	return op{do: func() {
		p = mremap(p, 64*kib, 128*kib, unix.MREMAP_MAYMOVE, 0)
		store(p + 64*kib)
		mremap(p, 128*kib, 64*kib, 0, 0)
	}}, func() { munmap(p, 64*kib) }
}

func forkExec() (op, func()) {
	self, err := os.Executable()
	check(err, "finding the program")
	path, err := unix.BytePtrFromString(self)
	check(err, self)
	flag, err := unix.BytePtrFromString("-exit")
	check(err, "-exit")
	args := []*byte{path, flag, nil}
	return op{do: func() { fork(path, unsafe.SliceData(args)) }}, nothing
}

// A faulter touches pages that nobody has touched, each in a huge page of its own, so that each fault is a
// fault of the sandbox too.
type faulter struct {
	base, at uintptr
}

const faulterLength = 8 * gib

func newFaulter() *faulter { return &faulter{base: mapAnon(faulterLength, unix.MAP_NORESERVE)} }

// next makes room for the next fault, when there is none.
func (f *faulter) next() {
	if f.at >= faulterLength {
		munmap(f.base, faulterLength)
		f.base, f.at = mapAnon(faulterLength, unix.MAP_NORESERVE), 0
	}
}

func (f *faulter) fault() {
	store(f.base + f.at)
	f.at += 2 * mib
}

func (f *faulter) close() { munmap(f.base, faulterLength) }
