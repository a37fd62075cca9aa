package mm

import (
	"sync/atomic"
	"time"
)

// In tests each step seems to take a second: steps then are single pieces, and those that populate all alike, whatever the machine does. Tests
// of pace set clocks of their own.
func init() {
	firstPieces = 1
	mostPopulated = populateSize
	var seconds atomic.Int64
	stepClock = func() time.Time { return time.Unix(seconds.Add(1), 0) }
}
