package main

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sentrymm/test/bench/sample"
)

// A storm is what one thread does over and over while another measures.
type storm struct {
	name string
	// begin prepares it and returns what is repeated. What happens while s.on is set is measured; it is set
	// all the time but where a storm says, by only, that it does that itself.
	begin func(s *scene) (again, end func())
}

// A watcher is what is measured meanwhile.
type watcher struct {
	name  string
	begin func() (o op, end func())
}

// A scene is a storm and a watcher. It may lie in memory of two processes.
type scene struct {
	on   atomic.Bool
	stop atomic.Bool

	// only is set if the storm sets on itself, around what is to be measured.
	only   atomic.Bool
	rounds atomic.Int32 // how often it was set

	// count is how often the storm came round, and took how long that was, of which it measured measured. They are
	// there when it has ended.
	count          int64
	took, measured time.Duration
}

// measure does f, the only part of the storm that counts.
func (s *scene) measure(f func()) {
	t := time.Now()
	s.on.Store(true)
	f()
	s.on.Store(false)
	s.measured += time.Since(t)
	s.rounds.Add(1)
}

// run does the storm st until it is to stop, and calls ready when it begins.
func (s *scene) run(st storm, ready func()) {
	runtime.LockOSThread()
	again, end := st.begin(s)
	if !s.only.Load() {
		again() // for warming up: of a large buffer, say, the sandbox has nothing mapped at first
		s.on.Store(true)
	}
	begun := time.Now()
	ready()
	for !s.stop.Load() {
		again()
		s.count++
		if !s.only.Load() {
			s.rounds.Add(1)
		}
	}
	s.took = time.Since(begun)
	if s.only.Load() {
		s.took = s.measured
	}
	if end != nil {
		end()
	}
}

// storms are named for what they do. The first does nothing.
func storms() []storm {
	return []storm{
		{"quiet", nil},
		// What a busy processor does to latencies, or two, without any memory calls: no storm can be better.
		{"spin", func(*scene) (again, end func()) { return spin, nil }},
		{"spin-2", func(s *scene) (again, end func()) {
			var other sync.WaitGroup
			other.Go(func() {
				runtime.LockOSThread()
				for !s.stop.Load() {
					spin()
				}
			})
			return spin, other.Wait
		}},
		{"populate-munmap-64m", func(*scene) (again, end func()) {
			return func() { munmap(mapAnon(64*mib, unix.MAP_POPULATE), 64*mib) }, nil
		}},
		{"fixed-64k", func(*scene) (again, end func()) {
			p := mapAnon(64*kib, 0)
			return func() {
				mmap(p, 64*kib, rw, anon|unix.MAP_FIXED, -1, 0)
				touch(p, 64*kib, page)
			}, func() { munmap(p, 64*kib) }
		}},
		{"mmap-munmap-64k", func(*scene) (again, end func()) {
			return mapTouchUnmap(64 * kib).do, nil
		}},
		{"munmap-1g", func(s *scene) (again, end func()) {
			s.only.Store(true)
			return func() {
				p := mapAnon(gib, unix.MAP_POPULATE)
				s.measure(func() { munmap(p, gib) })
			}, nil
		}},
		{"mprotect-64m", func(*scene) (again, end func()) {
			p := mapAnon(64*mib, unix.MAP_POPULATE)
			return func() {
				mprotect(p, 64*mib, unix.PROT_READ)
				mprotect(p, 64*mib, rw)
				touch(p, 64*mib, 2*mib)
			}, func() { munmap(p, 64*mib) }
		}},
		{"dontneed-64m", func(*scene) (again, end func()) {
			p := mapAnon(64*mib, 0)
			return func() {
				touch(p, 64*mib, 64*kib)
				madvise(p, 64*mib, unix.MADV_DONTNEED)
			}, func() { munmap(p, 64*mib) }
		}},
		{"fork", func(*scene) (again, end func()) {
			p := mapAnon(64*mib, unix.MAP_POPULATE)
			return func() { fork(nil, nil) }, func() { munmap(p, 64*mib) }
		}},
		{"maps-reader", func(*scene) (again, end func()) {
			m := newMapsReader()
			return m.read, m.close
		}},
		{"read-512m", func(s *scene) (again, end func()) {
			fd := memfd(512 * mib)
			p := mapAnon(512*mib, unix.MAP_POPULATE)
			return func() {
					n, _, errno := syscall.Syscall6(unix.SYS_PREAD64, uintptr(fd), p, 512*mib, 0, 0, 0)
					checkErrno(errno, "read")
					if n != 512*mib {
						checkErrno(unix.EIO, "read")
					}
				}, func() {
					munmap(p, 512*mib)
					unix.Close(fd)
				}
		}},
	}
}

var spun atomic.Int64

// spin computes for some 100 microseconds.
func spin() {
	for range 10_000 {
		spun.Add(1)
	}
}

func faultWatcher() watcher {
	return watcher{"fault", firstTouch}
}

// mapWatcher maps and unmaps a range of its own.
func mapWatcher() watcher {
	return watcher{"third", func() (op, func()) { return mapTouchUnmap(64 * kib), nothing }}
}

// ioWatcher writes and reads a page, with another buffer each time.
func ioWatcher() watcher {
	return watcher{"io", func() (op, func()) {
		fd := memfd(page)
		p := mapAnon(mib, unix.MAP_POPULATE)
		at := uintptr(0)
		do := func() {
			_, _, errno := syscall.Syscall6(unix.SYS_PWRITE64, uintptr(fd), p+at, page, 0, 0, 0)
			checkErrno(errno, "write")
			at = (at + page) % mib
			_, _, errno = syscall.Syscall6(unix.SYS_PREAD64, uintptr(fd), p+at, page, 0, 0, 0)
			checkErrno(errno, "read")
		}
		return op{do: do}, func() { munmap(p, mib); unix.Close(fd) }
	}}
}

// mapsWatcher reads /proc/self/maps with that many mappings in it.
func mapsWatcher(name string, mappings int) watcher {
	return watcher{"maps-" + name, func() (op, func()) {
		length := uintptr(mappings * page)
		p := manyMappings(mappings)
		m := newMapsReader()
		return op{do: m.read}, func() { m.close(); munmap(p, length) }
	}}
}

// manyMappings makes so many, one page each.
func manyMappings(n int) uintptr {
	p := mmap(0, uintptr(n*page), unix.PROT_NONE, anon, -1, 0)
	for i := 0; i < n; i += 2 {
		mprotect(p+uintptr(i*page), page, unix.PROT_READ)
	}
	return p
}

// A mapsReader reads all of /proc/self/maps.
type mapsReader struct{ buf []byte }

func newMapsReader() *mapsReader { return &mapsReader{make([]byte, 64*kib)} }

func (m *mapsReader) read() {
	fd, err := unix.Open("/proc/self/maps", unix.O_RDONLY, 0)
	check(err, "/proc/self/maps")
	for {
		n, err := unix.Read(fd, m.buf)
		check(err, "reading /proc/self/maps")
		if n == 0 {
			break
		}
	}
	unix.Close(fd)
}

func (m *mapsReader) close() {}

func stormRows() []row {
	watchers := []watcher{
		faultWatcher(),
		ioWatcher(),
		mapsWatcher("10", 10),
		mapsWatcher("1000", 1000),
		mapsWatcher("60000", 60000),
	}
	var rows []row
	for _, w := range watchers {
		for _, s := range storms() {
			if strings.HasPrefix(s.name, "spin") && w.name != "fault" {
				continue // once says what there is to say of busy processors
			}
			rows = append(rows, row{w.name + "/" + s.name, func(b *bench) { b.watch(w, s, s.here) }})
			if strings.HasPrefix(w.name, "maps-") && s.name == "populate-munmap-64m" {
				rows = append(rows, row{w.name + "/" + s.name + "-apart", func(b *bench) { b.watch(w, s, s.elsewhere) }})
			}
		}
	}
	for _, s := range storms() {
		if s.begin != nil && !strings.HasPrefix(s.name, "spin") {
			// A fault waits for no lock of the storm's memory manager then.
			rows = append(rows, row{"apart/" + s.name, func(b *bench) { b.watch(faultWatcher(), s, s.elsewhere) }})
		}
		if s.name == "munmap-1g" {
			w := mapWatcher()
			rows = append(rows, row{w.name + "/" + s.name, func(b *bench) { b.watch(w, s, s.here) }})
		}
	}
	return rows
}

// here begins the storm in another thread. It returns its scene, and what waits for its end.
func (s storm) here() (*scene, func()) {
	sc := &scene{}
	if s.begin == nil {
		sc.on.Store(true)
		sc.rounds.Store(fewest)
		return sc, nothing
	}
	var done sync.WaitGroup
	ready := make(chan struct{})
	done.Go(func() { sc.run(s, func() { close(ready) }) })
	<-ready
	return sc, done.Wait
}

// fewest is how often a storm has to come round while something is measured, unless that takes twenty times a row's
// time.
const fewest = 3

// watch measures w while the storm s goes on, which begin begins.
func (b *bench) watch(w watcher, s storm, begin func() (*scene, func())) {
	o, endWatch := w.begin()
	defer endWatch()
	sc, wait := begin()
	r := sample.NewRecorder()
	var timed time.Duration
	begun := time.Now()
	for passed := time.Duration(0); passed < b.time || sc.rounds.Load() < fewest && passed < 20*b.time; passed = time.Since(begun) {
		// Not to be in the way of what the storm prepares.
		if !sc.on.Load() {
			// In the kernel: the runtime's timers may be late.
			unix.Nanosleep(&unix.Timespec{Nsec: 200_000}, nil)
			continue
		}
		if o.before != nil {
			o.before()
		}
		t := time.Now()
		o.do()
		d := time.Since(t)
		r.Add(d)
		timed += d
	}
	sc.stop.Store(true)
	wait()
	b.say(r.Result(b.row, timed))
	if s.begin != nil {
		b.say(sample.Result{Row: "storm-" + b.row, Ops: sc.count, Seconds: sc.took.Seconds()})
	}
}
