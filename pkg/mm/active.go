package mm

import (
	"gvisor.dev/gvisor/pkg/sync"
)

// activeMutex is a reader/writer mutex that can be given away. Whoever unlocks a mutex and locks it again at
// once gets it before those who wait, for they have yet to wake up; an operation of many steps would keep a
// fault waiting for several of them, and not for one. A mutex whose writers always queue would be worse:
// each of many short sections would wait for somebody to wake up.
type activeMutex struct {
	sync.RWMutex

	// next is held by the first of the writers who wait.
	next sync.Mutex
}

// Lock locks m for writing.
func (m *activeMutex) Lock() {
	if !m.TryLock() {
		m.LockAfterOthers()
	}
}

// LockAfterOthers is Lock for the next step of an operation. Who waits already comes first.
func (m *activeMutex) LockAfterOthers() {
	m.next.Lock()
	m.RWMutex.Lock()
	m.next.Unlock()
}
