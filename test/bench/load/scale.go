package main

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sentrymm/test/bench/sample"
)

// untouched is how large a mapping is that has no pages as long as nobody touches it: the sentry makes some for small
// ones at once, and maps them, which is host work.
const untouched = 4 * mib

// scaleOps are done by several threads, each on ranges of its own.
func scaleOps() []watcher {
	return []watcher{
		{"getppid", getppid},
		{"mmap-munmap-untouched", func() (op, func()) {
			return op{do: func() { munmap(mapAnon(untouched, 0), untouched) }}, func() {}
		}},
		{"mprotect-untouched", func() (op, func()) {
			p := mapAnon(2*untouched, 0)
			mprotect(p, untouched, unix.PROT_READ)
			return op{do: func() {
				mprotect(p, untouched, rw)
				mprotect(p, untouched, unix.PROT_READ)
			}}, func() { munmap(p, 2*untouched) }
		}},
		{"mincore", func() (op, func()) {
			p := mapAnon(64*kib, unix.MAP_POPULATE)
			vec := mapAnon(page, unix.MAP_POPULATE)
			return op{do: func() {
				_, _, errno := syscall.RawSyscall(unix.SYS_MINCORE, p, 64*kib, vec)
				checkErrno(errno, "mincore")
			}}, func() { munmap(p, 64*kib); munmap(vec, page) }
		}},
		{"mmap-touch-munmap-64k", func() (op, func()) { return mapTouchUnmap(64 * kib), nothing }},
		{"first-touch", firstTouch},
	}
}

func scaleRows() []row {
	var rows []row
	for _, w := range scaleOps() {
		for _, threads := range []int{1, 2, 4, 8} {
			rows = append(rows, row{fmt.Sprintf("scale/%s/%d", w.name, threads), func(b *bench) { b.scale(w, threads) }})
		}
	}
	for _, s := range scaleStorms() {
		rows = append(rows, row{s.name + "/apart", func(b *bench) { b.scaleApart(s) }})
	}
	return rows
}

// scaleStorms are the operations as storms.
func scaleStorms() []storm {
	var all []storm
	for _, w := range scaleOps() {
		all = append(all, storm{"scale/" + w.name, func(*scene) (again, end func()) {
			o, finish := w.begin()
			if o.before == nil {
				return o.do, finish
			}
			return func() {
				o.before()
				o.do()
			}, finish
		}})
	}
	return all
}

// scaleApart has two processes do it, which share no memory manager: what two threads of one can do at best.
func (b *bench) scaleApart(s storm) {
	theirs, theirEnd := s.elsewhere()
	mine, myEnd := s.here()
	d := unix.NsecToTimespec(b.time.Nanoseconds())
	unix.Nanosleep(&d, nil)
	mine.stop.Store(true)
	theirs.stop.Store(true)
	myEnd()
	theirEnd()
	b.say(sample.Result{Row: b.row, Ops: mine.count + theirs.count, Seconds: mine.took.Seconds()})
}

// scale has that many threads do w's operation.
func (b *bench) scale(w watcher, threads int) {
	var ready, done sync.WaitGroup
	begin := make(chan struct{})
	counts := make([]int64, threads)
	var end time.Time
	ready.Add(threads)
	for i := range threads {
		done.Go(func() {
			runtime.LockOSThread()
			o, finish := w.begin()
			defer finish()
			ready.Done()
			<-begin
			for n := int64(0); ; n++ {
				// The clock is read by no means for free in a sandbox.
				if n%16 == 0 && !time.Now().Before(end) {
					counts[i] = n
					return
				}
				if o.before != nil {
					o.before()
				}
				o.do()
			}
		})
	}
	ready.Wait()
	t := time.Now()
	end = t.Add(b.time)
	close(begin)
	done.Wait()
	res := sample.Result{Row: b.row, Seconds: time.Since(t).Seconds()}
	for _, n := range counts {
		res.Ops += n
	}
	b.say(res)
}
