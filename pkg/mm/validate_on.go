//go:build mmvalidate

package mm

const validateByDefault = true
