package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// Claims: little that goes is given back together, a moment later; much, and what somebody else may want, at once; and nothing is left behind.

// late returns how many bytes are to be given back later.
func (m *testMM) late() uint64 {
	m.spares.mu.Lock()
	defer m.spares.mu.Unlock()
	return m.spares.late.bytes
}

func TestLittleIsGivenBackLaterTogether(t *testing.T) {
	for name, give := range map[string]func(m *testMM, addr hostarch.Addr){
		"munmap":  func(m *testMM, addr hostarch.Addr) { m.mustUnmap(addr, pageSize) },
		"madvise": func(m *testMM, addr hostarch.Addr) { m.Decommit(addr, pageSize) },
	} {
		t.Run(name, func(t *testing.T) {
			m := recycleTest(t)
			const n = 8
			addr := m.mustMap(n*pageSize, hostarch.ReadWrite, fixedAt(m.base))
			frs := m.pagesAt(rangeAt(addr, n*pageSize))
			for i := range hostarch.Addr(n) {
				give(m, addr+i*pageSize)
			}
			if got := m.late(); got != n*pageSize {
				t.Errorf("%#x bytes are to be given back, want %#x", got, n*pageSize)
			}
			for _, fr := range frs {
				if refs := refsOf(m.mf, fr.Start); refs != 1 {
					t.Errorf("%v has %d references", fr, refs)
				}
			}
			m.dropLate()
			for _, fr := range frs {
				if refs := refsOf(m.mf, fr.Start); refs != 0 {
					t.Errorf("%v was not given back: %d references", fr, refs)
				}
			}
			if got := m.late(); got != 0 {
				t.Errorf("%#x bytes are still to be given back", got)
			}
			m.check()
		})
	}
}

// Not to keep what somebody wants.
func TestGivenBackAtOnce(t *testing.T) {
	for name, give := range map[string]func(m *testMM){
		"much": func(m *testMM) {
			m.mustMap(lateBelow, hostarch.ReadWrite, fixedAt(m.base))
			m.mustUnmap(m.base, lateBelow)
		},
		"many": func(m *testMM) {
			m.mustMap(lateMax+pageSize, hostarch.ReadWrite, fixedAt(m.base))
			for i := range hostarch.Addr(lateMax/pageSize + 1) {
				m.mustUnmap(m.base+i*pageSize, pageSize)
			}
		},
		"shared": func(m *testMM) {
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
			child := m.fork()
			m.mustUnmap(m.base, pageSize)
			child.mustWrite(m.base, "child")
		},
		"of a file": func(m *testMM) {
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated, sharedFile(newTestMappable(m.t, m.mf, pageSize), 0))
			m.mustUnmap(m.base, pageSize)
		},
		"checkpoint": func(m *testMM) {
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
			m.mustUnmap(m.base, pageSize)
			if err := m.InvalidateUnsavable(m.ctx); err != nil {
				m.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := recycleTest(t)
			give(m)
			if n := m.late(); n != 0 {
				t.Errorf("%#x bytes are to be given back later", n)
			}
			m.check()
		})
	}
	m := recycleTest(t)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	m.mustUnmap(m.base, pageSize)
	m.exit() // says what is left in the memory file
	m.dropLate()
}

// A timer may be in the middle of giving pages back. Who has to know that all are waits for it: the last user, and a checkpoint.
func TestPagesBeingGivenBackAreWaitedFor(t *testing.T) {
	for name, f := range map[string]func(m *testMM) error{
		"exit":       func(m *testMM) error { m.exit(); return nil },
		"checkpoint": func(m *testMM) error { return m.InvalidateUnsavable(m.ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			m.spares.giving.Lock() // as dropLate and expireRecycled do
			k := spawn(t, name, func() error { return f(m) })
			k.mustBlock()
			m.spares.giving.Unlock()
			k.mustSucceed()
		})
	}
}

// And they do.
func TestTimersSayThatTheyGiveBack(t *testing.T) {
	for name, f := range map[string]func(m *testMM){
		"late": func(m *testMM) { m.dropLate() }, "recycled": func(m *testMM) { m.expireRecycled() },
	} {
		m := newTestMM(t)
		m.spares.giving.Lock()
		k := spawn(t, name, func() error { f(m); return nil })
		k.mustBlock()
		m.spares.giving.Unlock()
		k.mustSucceed()
	}
}
