package mm

import (
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/usermem"
)

// slowHost has the host take call for each call, and perStep more for each populateSize that it populates. It returns how many bytes the last
// call populated.
func (m *testMM) slowHost(call, perStep time.Duration) *hostarch.Addr {
	last := new(hostarch.Addr)
	m.as.on("MapFile", 0, nil, func(arg any) error {
		now := stepClock().Add(call)
		if c := arg.(asCall); c.precommit {
			*last = c.ar.Length()
			now = now.Add(time.Duration(*last) * perStep / populateSize)
		}
		stepClock = func() time.Time { return now }
		return nil
	})
	return last
}

// Steps are compared with faults, and are as long as may be if there are none.
func TestStepsThatPopulateAreAsLongAsFaults(t *testing.T) {
	wasClock, wasMost := stepClock, mostPopulated
	stepClock = func() time.Time { return time.Unix(1, 0) }
	mostPopulated = 1 << 20
	t.Cleanup(func() { stepClock, mostPopulated, testHookCommitted = wasClock, wasMost, nil })
	const us = time.Microsecond
	m := newTestMM(t)
	elsewhere := m.mustMap(4<<30, hostarch.ReadWrite, fixedAt(m.base+1<<34))
	for _, c := range []struct {
		name          string
		call, perStep time.Duration
		faults        bool
		copies        bool
		ownThreads    bool
		want          hostarch.Addr
	}{
		{"pages take it all", 1 * us, 20 * us, true, false, false, populateSize},
		{"calls take most of it", 100 * us, 10 * us, true, false, false, 1 << 20},
		{"pages take some of it", 40 * us, 16 * us, true, false, false, 512 << 10}, // 1 MiB takes 2.6 times as long as a fault, 512 KiB 1.8 times, and 256 1.4 times
		{"pages take it all again", 1 * us, 20 * us, true, false, false, populateSize},
		{"nobody faults", 1 * us, 20 * us, false, false, false, 1 << 20},
		{"nobody faults, but somebody copies", 1 * us, 20 * us, false, true, false, populateSize},
		{"nobody does anything", 1 * us, 20 * us, false, false, false, 1 << 20},
		{"nobody does anything, and each context has threads of its own", 1 * us, 20 * us, false, false, true, ownThreadsPopulated << 20},
		{"somebody does again", 1 * us, 20 * us, true, false, false, populateSize},
		{"pages take some of it again", 40 * us, 16 * us, true, false, false, 512 << 10},
	} {
		m.p.ownThreads = c.ownThreads
		last := m.slowHost(c.call, c.perStep)
		faulted := hostarch.Addr(0)
		testHookCommitted = func() {
			if c.faults {
				m.mustFault(elsewhere+faulted, pageSize, hostarch.Write)
				faulted += pieceSize
			}
			if c.copies {
				m.CopyIn(m.ctx, m.base+1<<33, make([]byte, 1), usermem.IOOpts{}) // nothing is mapped there
			}
		}
		const n = 256 << 20
		m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
		testHookCommitted = nil
		if *last != c.want {
			t.Errorf("if %s, the last step populated %#x bytes, want %#x", c.name, uint64(*last), uint64(c.want))
		}
		m.mustUnmap(m.base, n)
		m.mustUnmap(elsewhere, 4<<30)
		elsewhere = m.mustMap(4<<30, hostarch.ReadWrite, fixedAt(m.base+1<<34))
		m.as.hooks.armed = nil
	}
	m.check()
}

// Only steps of the size in question tell anything about it.
func TestStepSizesAreToldAnew(t *testing.T) {
	wasMost := mostPopulated
	mostPopulated = 1 << 20
	t.Cleanup(func() { mostPopulated = wasMost })
	var s stepSize
	steps := func(n hostarch.Addr, d time.Duration) {
		for range stepsToTell {
			s.noteStep(n, d, false, mostPopulated)
		}
	}
	mustBe := func(want hostarch.Addr, after string) {
		t.Helper()
		if got := s.now(); got != want {
			t.Errorf("after %s a step populates %#x bytes, want %#x", after, uint64(got), uint64(want))
		}
	}
	s.noteFault(150)
	steps(populateSize/2, 1)
	mustBe(populateSize, "quick steps of another size")
	steps(populateSize, 100)
	mustBe(2*populateSize, "quick steps")
	s.noteFault(150)
	steps(2*populateSize, 1000)
	mustBe(populateSize, "slow ones that were to be like them")
	steps(populateSize, 1000)
	mustBe(2*populateSize, "steps without faults")
	s.noteStep(2*populateSize, 1000, true, mostPopulated)
	steps(2*populateSize, 1000)
	mustBe(populateSize, "as many of which one was beside copies")
	steps(populateSize, 1000)
	mustBe(2*populateSize, "steps without either")
}

// What has its memory only when activeMu is locked is populated in short steps, however long others are.
func TestStepsWithoutMemoryStayShort(t *testing.T) {
	const n = 8 * populateSize
	for name, mod := range map[string]func(m *testMM) mmapMod{
		"a private file": func(m *testMM) mmapMod { return privateFile(newTestMappable(m.t, m.mf, n), 0) },
		"a shared file":  func(m *testMM) mmapMod { return sharedFile(newTestMappable(m.t, m.mf, n), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			m.MemoryManager.populated.doubled = 2
			file := mod(m)
			h := m.callsOf(func() { m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), file, committedNow) })
			if h.mostMapped > populateSize {
				t.Errorf("one step populated %#x bytes, want no more than %#x", h.mostMapped, uint64(populateSize))
			}
			if h := m.callsOf(func() { m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base+1<<30), committedNow) }); h.mostMapped != 4*populateSize {
				t.Errorf("one step populated %#x bytes of anonymous memory, want %#x", h.mostMapped, uint64(4*populateSize))
			}
			m.check()
		})
	}
}
