package mm

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// letOthersRun lets whoever waits for a processor go first: goroutines, and threads of the host. An operation of
// many steps calls it between them. Without it, a fault that waits for nothing but a processor waits until the
// scheduler takes it from the operation, which is one to several milliseconds.
//
// Preconditions: no locks of mm are held but mappingMu.
func letOthersRun() {
	if testHookLetOthersRun != nil {
		testHookLetOthersRun()
	}
	runtime.Gosched()
	unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
}

// testHookLetOthersRun, if not nil, runs when an operation lets others run.
var testHookLetOthersRun func()
