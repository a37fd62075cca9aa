// What must happen in one section of activeMu, and what must be looked at anew in each:
// here others queue up for it, and come in wherever it is let go.

package mm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// whileLocked runs f with activeMu locked.
func (m trapMM) whileLocked(f func()) {
	m.activeMu.RLock()
	defer m.activeMu.RUnlock()
	f()
}

// settle is mustBlock for a task that may as well have returned.
func (k *task) settle() {
	for waits := 0; waits < 8 && !k.returned(); time.Sleep(time.Millisecond) {
		if state, _ := goroutineState(k.gid); isWaiting(state) {
			waits++
		}
	}
}

// vmas, pmas and what the host has mapped change in one section of activeMu. Whoever
// comes next finds them in agreement, or the range frozen, though the operation may go on.
func TestPagesVMAsAndHostChangeTogether(t *testing.T) {
	const n = 4 * pageSize
	for name, op := range map[string]func(m trapMM) error{
		"munmap": func(m trapMM) error { return m.MUnmap(m.ctx, m.base, n) },
		"mmap": func(m trapMM) error {
			_, err := m.mmap(n, hostarch.NoAccess, fixedAt(m.base))
			return err
		},
		"mmap with pages": func(m trapMM) error {
			_, err := m.mmap(n, hostarch.Read, fixedAt(m.base), populated)
			return err
		},
		"mprotect":      func(m trapMM) error { return m.MProtect(m.base, n, hostarch.Read, false) },
		"MADV_DONTNEED": func(m trapMM) error { return m.Decommit(m.base, n) },
		"invalidation": func(m trapMM) error {
			m.Invalidate(rangeAt(m.base, n), memmap.InvalidateOpts{InvalidatePrivate: true})
			return nil
		},
		"fork": func(m trapMM) error {
			child, err := m.Fork(m.ctx)
			if err == nil {
				child.DecUsers(m.ctx)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
			var queue []*task
			m.whileLocked(func() {
				for _, k := range []struct {
					name string
					f    func() error
				}{
					{name, func() error { return op(m) }},
					{"looking at pages", func() error {
						m.activeMu.RLock()
						defer m.activeMu.RUnlock()
						return m.validatePMAs(m.vmas.Snapshot())
					}},
					{"looking at the host", m.checkHost},
				} {
					task := spawn(t, k.name, k.f)
					task.mustBlock()
					queue = append(queue, task)
				}
			})
			for _, k := range queue {
				k.mustSucceed()
			}
			m.check()
		})
	}
}

// A moved mapping is shown with the pages that moved.
func TestSmapsShowsMovedPagesWithTheirMapping(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 2*pageSize)
	dst, src := m.base, m.base+1<<30
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(src), sharedFile(f, 0), populated)
	copying := f.pauseAt("CopyMapping", 1)
	move := spawn(t, "mremap", func() error { return m.move(rangeAt(src, 2*pageSize), dst) })
	copying.wait()
	copied := make(chan struct{})
	f.id.on("IncRef", 1, nil, func(any) error { close(copied); return nil }) // by the new vma
	var smaps *task
	var text string
	m.whileLocked(func() {
		copying.resume()
		await(t, copied, "the new vma")
		move.mustBlock()
		smaps = spawn(t, "smaps", func() error { text = m.smaps(); return nil })
		smaps.mustBlock()
	})
	move.mustSucceed()
	smaps.mustSucceed()
	if !strings.Contains(text, fmt.Sprintf("%08x-", dst)) || !strings.Contains(text, "Rss:                   8 kB\n") {
		t.Errorf("two pages have moved to %#x, and smaps says\n%s", dst, text)
	}
	m.check()
}

// As TestNoStalePMAUnderNewVMA, for I/O. It looks for pages that are ready first, which
// takes activeMu for reading, and then for vmas. By then the replacement has come before
// it, and waits for another reader.
func TestNoStalePMAUnderNewVMAAfterIO(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	f.set.write(0, []byte("of the file"))
	addr := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base))
	m.Decommit(addr, pageSize) // mmap had populated it
	p := &pause{t: t, what: "the other reader", reached: make(chan struct{}), go_: make(chan struct{})}
	m.w.atEnd(p.resume)
	queue := func(name string, f func() error) *task {
		k := spawn(t, name, f)
		k.mustBlock()
		return k
	}
	m.activeMu.Lock()
	replace := queue("replacement", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(addr), privateFile(f, 0))
		return err
	})
	// Woken in vain once, it is the one whom the lock is handed to next.
	m.activeMu.Unlock()
	m.activeMu.Lock()
	replace.settle()
	read := queue("CopyIn", func() error {
		_, err := m.CopyIn(m.ctx, addr, make([]byte, 1), usermem.IOOpts{})
		return err
	})
	other := queue("another reader", func() error {
		m.activeMu.RLock()
		defer m.activeMu.RUnlock()
		p.hold(nil)
		return nil
	})
	m.activeMu.Unlock()
	p.wait()
	read.mustBlock()
	p.resume()
	for _, k := range []*task{other, replace, read} {
		k.mustSucceed()
	}
	m.check()
	m.mustLoad(addr, "of the file")
}

// MADV_DONTNEED leaves locked memory alone. Whether it is locked, the mapping says that
// is there when pages are dropped.
func TestDontneedDecidesByTheMappingThatIsThere(t *testing.T) {
	// Validating would have the operation in between wait for whoever maps.
	was := validateOps
	validateOps = false
	defer func() { validateOps = was }()
	m := newTrapMM(t)
	m.ctx.allowIPCLock(true)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base))
	m.mustStore(m.base, "kept")
	var drop *task
	m.whileLocked(func() {
		drop = spawn(t, "MADV_DONTNEED", func() error {
			if err := m.Decommit(m.base, pageSize); !linuxerr.Equals(linuxerr.EINVAL, err) {
				return fmt.Errorf("want EINVAL, got %v", err)
			}
			return nil
		})
		drop.mustBlock()
		if err := m.MLock(m.ctx, m.base, pageSize, memmap.MLockLazy); err != nil {
			t.Fatal(err)
		}
	})
	drop.mustSucceed()
	m.mustLoad(m.base, "kept")
	m.check()
}

// Mappings that move together are there, their pages with them, and not mapped by the
// host where they were: all at once.
//
//	src |--f--|..|--g--|
func TestMovedMappingsAndTheirPagesChangeTogether(t *testing.T) {
	m := newTrapMM(t)
	f, g := newTestMappable(t, m.mf, pageSize), newTestMappable(t, m.mf, pageSize)
	src, dst := rangeAt(m.base, 3*pageSize), m.base+1<<30
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(src.Start), sharedFile(f, 0), populated)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(src.Start+2*pageSize), sharedFile(g, 0), populated)
	copying := g.pauseAt("CopyMapping", 1)
	move := spawn(t, "mremap", func() error { return m.move(src, dst) })
	copying.wait()
	copied := make(chan struct{})
	g.id.on("IncRef", 1, nil, func(any) error { close(copied); return nil }) // by the new vma
	var queue []*task
	m.whileLocked(func() {
		copying.resume()
		await(t, copied, "the new vma")
		move.mustBlock()
		queue = append(queue, spawn(t, "looking at pages", func() error {
			m.activeMu.RLock()
			defer m.activeMu.RUnlock()
			for _, a := range []hostarch.Addr{0, 2 * pageSize} {
				_, mapped := m.vmas.Snapshot().Find(uint64(dst + a))
				_, moved := m.pmas.Find(uint64(dst + a))
				_, left := m.pmas.Find(uint64(src.Start + a))
				if !mapped || !moved || left {
					return fmt.Errorf("%#x is mapped: %t, has pages: %t; has left pages behind: %t", dst+a, mapped, moved, left)
				}
			}
			return nil
		}))
		queue = append(queue, spawn(t, "looking at the host", m.checkHost))
		for _, k := range queue {
			k.mustBlock()
		}
	})
	for _, k := range append(queue, move) {
		k.mustSucceed()
	}
	m.check()
}

// A page next to a range that is being unmapped may come at any moment. It is not in a hole that a step reaches into.
func TestPageNextToMunmapStaysMapped(t *testing.T) {
	ar := func(m trapMM) hostarch.AddrRange { return rangeAt(m.base, manyPieces) }
	for name, op := range map[string]func(m trapMM) error{
		"munmap": func(m trapMM) error { return m.MUnmap(m.ctx, m.base, manyPieces) },
		"mremap": func(m trapMM) error { return m.move(ar(m), m.base+1<<30) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			ar := ar(m)
			m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(ar.End))
			m.Decommit(ar.End, pageSize) // mmap had populated it
			m.passDuring(ar, func() error { return op(m) }, func() error { return m.fault(ar.End, hostarch.Write) })
			if m.as.mappedPages(rangeAt(ar.End, pageSize)) == 0 {
				t.Errorf("%s took the page next to it from the host", name)
			}
			m.check()
		})
	}
}
