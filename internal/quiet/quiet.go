// Package quiet reads and writes TCP connections without a word to Go's scheduler.
//
// Each system call that the scheduler hears of wakes its monitor, a thread that then
// looks every 20 µs whether one takes too long: on a busy node it has the core that
// the target wants, half as often as the agent itself. These here never take long:
// a socket that has nothing, or no room, says so and is waited for as always.
//
// On other systems than Linux connections are as package net makes them.
package quiet
