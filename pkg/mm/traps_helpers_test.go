// The traps of the design are tests named for them, in the files traps_*. Each
// fails when its protection is taken out. This file has what they share: an
// application that reads and writes, and a way to let somebody in between two
// pieces of the host's work.

package mm

import (
	"errors"
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// manyPieces is the size of mappings that take the host more than one step.
const manyPieces = 4 * pieceSize

// trapMM is a testMM whose application's accesses have to succeed.
type trapMM struct {
	*testMM
}

// newTrapMM returns a trapMM with memory behind it.
func newTrapMM(t testing.TB, mods ...func(*mmConfig)) trapMM {
	t.Helper()
	return trapMM{newTestMM(t, append(mods, onRealMemory)...)}
}

// mustStore writes s at addr.
func (m trapMM) mustStore(addr hostarch.Addr, s string) {
	m.t.Helper()
	if err := m.store(addr, []byte(s)); err != nil {
		m.t.Fatalf("writing %q at %#x: %v", s, addr, err)
	}
}

// mustLoad reads at addr, where want has to be.
func (m trapMM) mustLoad(addr hostarch.Addr, want string) {
	m.t.Helper()
	if err := m.expect(addr, want); err != nil {
		m.t.Fatal(err)
	}
}

// expect returns an error if the application does not find want at addr.
func (m trapMM) expect(addr hostarch.Addr, want string) error {
	got, err := m.load(addr, len(want))
	if err != nil || string(got) != want {
		return fmt.Errorf("at %#x is %q, %v; want %q", addr, got, err, want)
	}
	return nil
}

// mustGetSIGBUS reads at addr, where nothing may be behind the mapping.
func (m trapMM) mustGetSIGBUS(addr hostarch.Addr) {
	m.t.Helper()
	got, err := m.load(addr, 1)
	var bus *memmap.BusError
	if !errors.As(err, &bus) {
		m.t.Fatalf("at %#x is %q, %v; want SIGBUS", addr, got, err)
	}
}

// storeWithoutFault writes s at addr if the host lets the application do that
// without asking the sentry, and returns whether it did.
func (m trapMM) storeWithoutFault(addr hostarch.Addr, s string) bool {
	m.t.Helper()
	_, err := m.realAS().CopyOut(addr, []byte(s))
	return !m.faulted(err)
}

// loadWithoutFault is the same for reading.
func (m trapMM) loadWithoutFault(addr hostarch.Addr, n int) (string, bool) {
	m.t.Helper()
	buf := make([]byte, n)
	_, err := m.realAS().CopyIn(addr, buf)
	return string(buf), !m.faulted(err)
}

func (m trapMM) faulted(err error) bool {
	m.t.Helper()
	var segv platform.SegmentationFault
	if err != nil && !errors.As(err, &segv) {
		m.t.Fatal(err)
	}
	return err != nil
}

// zeroes is n bytes of fresh memory.
func zeroes(n int) string { return string(make([]byte, n)) }

// pauseUnmap stops who next has the host unmap something in ar.
func (m trapMM) pauseUnmap(ar hostarch.AddrRange) *pause {
	return m.as.pauseIf("Unmap", 1, func(arg any) bool { return arg.(asCall).ar.Overlaps(ar) })
}

// interleaved is an operation that is stopped in the middle of its host work, and
// another task that has had its chance to come in between.
type interleaved struct {
	op, other *task
	stopped   *pause
}

// betweenPieces starts op, which has the host unmap ar piece by piece, and other,
// when the first piece is being unmapped. It returns when the third is, of four:
//
//	ar | piece 0 | piece 1 | piece 2 | piece 3 |
//	             ^         ^         ^ op is here
//	             |         other is the next in the queue for activeMu
//	             other may pass, if it is quick
//
// A lock that somebody has waited for longer than a moment is handed to him. So if
// other waits for nothing but activeMu, it has had it by then; whatever it waits for
// afterwards is what the test is about.
func (m trapMM) betweenPieces(ar hostarch.AddrRange, op, other func() error) interleaved {
	m.t.Helper()
	var pieces [3]*pause
	for i := range pieces {
		pieces[i] = m.pauseUnmap(rangeAt(ar.Start+hostarch.Addr(i)*pieceSize, pieceSize))
	}
	var i interleaved
	i.op = spawn(m.t, "the operation", op)
	pieces[0].wait()
	i.other = spawn(m.t, "the other task", other)
	i.other.mustBlock()
	pieces[0].resume()
	pieces[1].wait()
	i.other.mustBlock()
	pieces[1].resume()
	pieces[2].wait()
	i.stopped = pieces[2]
	return i
}

// finish lets the operation go on, and waits for both.
func (i interleaved) finish() {
	i.op.t.Helper()
	i.stopped.resume()
	i.op.mustSucceed()
	i.other.mustSucceed()
}

// passDuring starts op, which has the host unmap something in ar, and other, which has to be done while the host is at it.
func (m trapMM) passDuring(ar hostarch.AddrRange, op, other func() error) {
	m.t.Helper()
	p := m.pauseUnmap(ar)
	k := spawn(m.t, "the operation", op)
	p.wait()
	spawn(m.t, "the other task", other).mustSucceed()
	p.resume()
	k.mustSucceed()
}

// mustHaveNothing returns an error if the host has anything mapped in ar.
func (m trapMM) mustHaveNothing(ar hostarch.AddrRange) error {
	if n := m.as.mappedPages(ar); n != 0 {
		return fmt.Errorf("the host has %#x bytes of %v mapped", n, ar)
	}
	return nil
}
