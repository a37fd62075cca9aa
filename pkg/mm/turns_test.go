package mm

import (
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claim: who asks the host for one thing after the other lets those go first who have asked meanwhile. (On a platform that carries out one call after the
// other, and gives its mutex to whoever is awake, they would wait for most of the rest.)
func TestWhoAskedMeanwhileComesFirst(t *testing.T) {
	for _, c := range []struct {
		name string
		call string // the first
		op   func(m trapMM) error
	}{
		{"munmap", "Unmap", func(m trapMM) error { return m.MUnmap(m.ctx, m.base, manyPieces) }},
		{"mremap", "Unmap", func(m trapMM) error { return m.move(rangeAt(m.base, manyPieces), m.base+2<<30) }},
		{"mprotect of several pmas", "MapFile", func(m trapMM) error { return m.MProtect(m.base+1<<30, 3*pageSize, hostarch.Read, false) }},
		{"fork", "MapFile", func(m trapMM) error { m.fork(); return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTrapMM(t)
			m.severalThreads()
			m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), populated)
			m.mustMap((mostGap+5)*pageSize, hostarch.AnyAccess, fixedAt(m.base+1<<30), committedNow) // of code, each page is copied by itself
			elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+4<<30))
			child := m.fork()
			for _, i := range []hostarch.Addr{0, 2, mostGap + 4} { // in one piece, and in another
				m.mustWrite(m.base+1<<30+i*pageSize, "hot")
			}
			child.exit()
			op := m.as.pauseIf(c.call, 1, func(arg any) bool { return c.name != "fork" || arg.(asCall).perms.Write })
			fault := m.as.pauseIf("MapFile", 1, func(arg any) bool { return arg.(asCall).ar.Contains(elsewhere) })
			one := spawn(t, c.name, func() error { return c.op(m) })
			op.wait()
			other := spawn(t, "a fault", func() error { return m.fault(elsewhere, hostarch.Write) })
			fault.wait()
			m.as.forget()
			op.resume()
			one.mustBlock()
			if calls := m.as.history(); len(calls) != 1 {
				t.Errorf("before the fault was mapped there were these calls:\n%s", callString(calls))
			}
			fault.resume()
			other.mustSucceed()
			one.mustSucceed()
			if calls := m.as.history(); len(calls) < 2 {
				t.Errorf("there was nothing left to do:\n%s", callString(calls))
			}
			m.check()
		})
	}
}

// slowFile says where its data is only when it may.
type slowFile struct {
	memmap.File
	once          sync.Once
	reached, goOn chan struct{}
}

func (f *slowFile) DataFD(fr memmap.FileRange) (int, error) {
	f.once.Do(func() {
		close(f.reached)
		<-f.goOn
	})
	return f.File.DataFD(fr)
}

// Nobody waits for their turn while somebody waits for a file.
func TestNobodyWaitsForAFileToHaveTheirTurn(t *testing.T) {
	m := newTrapMM(t)
	addr := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	_, _, fr, _ := m.pmaAt(addr)
	f := &slowFile{File: m.mf, reached: make(chan struct{}), goOn: make(chan struct{})}
	slow := spawn(t, "a call for a slow file", func() error {
		return m.turns.mapFile(m.MemoryManager.as, &mappedPart{start: addr, file: f, fr: fr, perms: hostarch.Read})
	})
	await(t, f.reached, "the file")
	spawn(t, "the next one's turn", func() error { m.turns.letOthersFirst(); return nil }).mustSucceed()
	close(f.goOn)
	slow.mustSucceed()
	m.mustFault(addr, pageSize, hostarch.Write)
	m.check()
}

// A fork does not map again what somebody has faulted for meanwhile, even if that failed: then it faults again.
func TestFaultsAreMappedOnce(t *testing.T) {
	for _, fails := range []bool{false, true} {
		m, addr, hot := newHot(t, false)
		other := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(addr+64*pageSize), committedNow)
		m.mustWrite(other, "old")
		m.fork().exit()
		m.mustWrite(hot, "one")
		m.mustWrite(other, "two")
		second := other
		p := m.as.pauseIf("MapFile", 1, func(arg any) bool {
			c := arg.(asCall)
			if c.perms.Write && c.ar.Start == other {
				second = hot
			}
			return c.perms.Write
		})
		var child *MemoryManager
		fork := spawn(t, "fork", func() (err error) { child, err = m.Fork(m.ctx); return err })
		p.wait()
		if fails {
			m.as.on("MapFile", 1, func(arg any) bool { return arg.(asCall).ar.Start == second }, func(any) error { return linuxerr.ENOMEM })
		}
		m.as.forget()
		if err := m.fault(second, hostarch.Write); (err != nil) != fails {
			t.Errorf("the fault: %v", err)
		}
		p.resume()
		fork.mustSucceed()
		mapped := 0
		for _, c := range m.as.history() {
			if c.ar.Contains(second) {
				mapped++
			}
		}
		if mapped != 1 {
			t.Errorf("a page that faulted was mapped %d times", mapped)
		}
		m.mustWrite(second, "new")
		c := wrapMM(t, child, m.ctx.clone())
		c.mustRead(hot, "one")
		c.mustRead(other, "two")
		m.check()
	}
}
