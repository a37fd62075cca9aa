package mm

import (
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/checkpoint"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// testCtx is the context of a task, as far as memory management asks.
type testCtx struct {
	context.Context
	limits *limits.LimitSet
	creds  *auth.Credentials
	mf     *pgalloc.MemoryFile
	files  map[checkpoint.ResourceID]*pgalloc.MemoryFile
	killed atomic.Bool
}

// testContext returns a context with no limits and no capabilities, and with the
// given memory file, which may be nil.
func testContext(t testing.TB, mf *pgalloc.MemoryFile) *testCtx {
	c := &testCtx{
		Context: context.Background(),
		limits:  limits.NewLimitSet(),
		mf:      mf,
	}
	ns := auth.NewRootUserNamespace()
	c.creds = auth.NewUserCredentials(1000, 1000, nil, &auth.TaskCapabilities{}, ns)
	if mf != nil {
		c.files = map[checkpoint.ResourceID]*pgalloc.MemoryFile{mf.ResourceID(): mf}
	}
	return c
}

// Value implements context.Context.
func (c *testCtx) Value(key any) any {
	switch key {
	case limits.CtxLimits:
		return c.limits
	case auth.CtxCredentials:
		return c.creds
	case pgalloc.CtxMemoryFile:
		return c.mf
	case pgalloc.CtxMemoryFileMap:
		return c.files
	case pgalloc.CtxMemoryCgroupID:
		return uint32(0)
	}
	return c.Context.Value(key)
}

// Killed implements context.Blocker.
func (c *testCtx) Killed() bool {
	return c.killed.Load()
}

// limit sets a resource limit, soft and hard.
func (c *testCtx) limit(which limits.LimitType, n uint64) {
	c.limits.SetUnchecked(which, limits.Limit{Cur: n, Max: n})
}

// allowIPCLock gives the task CAP_IPC_LOCK, or takes it away.
func (c *testCtx) allowIPCLock(allow bool) {
	creds := *c.creds
	creds.EffectiveCaps = 0
	if allow {
		creds.EffectiveCaps = auth.CapabilitySetOf(linux.CAP_IPC_LOCK)
	}
	c.creds = &creds
}

// clone returns a context that can be changed without affecting c.
func (c *testCtx) clone() *testCtx {
	return &testCtx{Context: c.Context, limits: c.limits.GetCopy(), creds: c.creds, mf: c.mf, files: c.files}
}
