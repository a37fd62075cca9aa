package mm

import (
	"gvisor.dev/gvisor/pkg/sync"
)

// activeMutex is a reader/writer mutex for which writers queue: whoever unlocks it and
// locks it again at once comes after those who wait already. A plain mutex lets him go
// first, for they have yet to wake up; an operation of many pieces would keep a fault
// waiting for several of them, and not for one.
type activeMutex struct {
	// next is held by the writer whose turn is next.
	next sync.Mutex
	sync.RWMutex
}

// Lock locks m for writing.
func (m *activeMutex) Lock() {
	m.next.Lock()
	m.RWMutex.Lock()
	m.next.Unlock()
}
