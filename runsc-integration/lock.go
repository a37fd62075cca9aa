package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"sentrymm/runsc-integration/sandbox"
)

// lock makes a second build in the same checkout wait for the first. The kernel drops the lock when
// this process ends, however it ends.
func (p *project) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(p.build(), 0o755); err != nil {
		return nil, sandbox.NoSpace(err, p.build())
	}
	f, err := os.OpenFile(p.build(".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, sandbox.NoSpace(err, p.build())
	}
	for waiting := false; ; waiting = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != syscall.EWOULDBLOCK && err != syscall.EINTR {
			f.Close()
			return nil, fmt.Errorf("flock %s: %w", f.Name(), err)
		}
		if !waiting {
			fmt.Fprintln(os.Stderr, "waiting for another build in this checkout")
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
