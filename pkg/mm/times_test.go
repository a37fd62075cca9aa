//go:build mmtimes

package mm

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
)

// A warnings is a context that keeps what is said.
type warnings struct {
	context.Context
	lines []string
}

func (w *warnings) Warningf(format string, v ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, v...))
}

// Claim: with mmtimes, each faultsInLine faults of a thread make a line of the log, with what each took since the end of the one before, and with
// the same less what the memory manager took. A minute passes whenever the clock is looked at.
func TestFaultTimesAreLogged(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	ar := rangeAt(m.mustMap(2*faultsInLine*hostarch.HugePageSize, hostarch.ReadWrite), 2*faultsInLine*hostarch.HugePageSize)
	now := time.Now()
	defer func(was func() time.Time) { stepClock = was }(stepClock)
	stepClock = func() time.Time { now = now.Add(time.Minute); return now }
	w := &warnings{Context: m.ctx}
	others := &warnings{Context: m.ctx}
	at := ar.Start
	touch := func(ctx context.Context) {
		if err := m.HandleUserFault(ctx, at, hostarch.Write, 0); err != nil {
			t.Fatal(err)
		}
		at += hostarch.HugePageSize
	}
	for range faultsInLine - 1 {
		touch(w)
	}
	touch(others)
	if len(w.lines) != 0 {
		t.Fatalf("%d faults and one of another thread: %q", faultsInLine-1, w.lines)
	}
	touch(w)
	if len(w.lines) != 1 || len(others.lines) != 0 {
		t.Fatalf("%d faults: %d lines, and %d of a thread with one", faultsInLine, len(w.lines), len(others.lines))
	}
	// By the clock: begin, askHost, twice for noteFault, hostDone, end. The first has no time outside, the last but one waits for the other thread's.
	all, without := strings.Repeat(",360000000000", faultsInLine-2), strings.Repeat(",240000000000", faultsInLine-2)
	want := regexp.MustCompile(`^mmtimes \{"Pages":\[\d+(,\d+)*\],"All":\[300000000000` + all + `,720000000000\],"Without":\[180000000000` + without + `,600000000000\]\}$`)
	if !want.MatchString(w.lines[0]) {
		t.Errorf("%s", w.lines[0])
	}
	m.check()
}
