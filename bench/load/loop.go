package main

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const (
	epollPwait2    = 441 // its number on every architecture; absent before Linux 5.11
	edge           = 1 << 31
	events         = syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge
	answerBytesMax = 16 << 20
	// Open loop: what falls due within this leaves together. A wake-up of an idle core costs more than a request.
	slackNs = int64(300 * time.Microsecond)
)

// conn is one connection: at most one request on it.
type conn struct {
	fd     int
	wire   *wire
	unsent []byte
	answer []byte
	busy   bool
	dueNs  int64
	sum    uint64
}

// loop owns every connection. Times are nanoseconds since its start.
type loop struct {
	plan    plan
	epoll   int
	conns   map[int32]*conn
	idle    []*conn
	sent    int
	done    int
	number  uint64
	began   time.Time
	scratch []byte
	tallies tallies
}

func drive(p plan) (*report, error) {
	runtime.LockOSThread()
	epoll, err := syscall.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	l := &loop{plan: p, epoll: epoll, conns: map[int32]*conn{}, number: p.seed, scratch: make([]byte, 256<<10)}
	l.tallies.errors = map[string]int{}
	for range min(p.connections, p.requests) {
		made, err := newWire(p)
		if err != nil {
			return nil, err
		}
		c := &conn{wire: made}
		if err := l.connect(c); err != nil {
			return nil, err
		}
		l.idle = append(l.idle, c)
	}
	l.began = time.Now()
	for l.done < p.requests {
		if l.now() > int64(p.deadline) {
			l.tallies.errors["unanswered at the deadline"] += p.requests - l.done
			break
		}
		l.send()
		if err := l.wait(); err != nil {
			return nil, err
		}
	}
	return l.tallies.report(p, l.now()), nil
}

func (l *loop) now() int64 { return int64(time.Since(l.began)) }

// due is when the next request should leave: in a closed loop now.
func (l *loop) due(now int64) int64 {
	if l.plan.rate == 0 {
		return now
	}
	return int64(float64(l.sent) / l.plan.rate * 1e9)
}

// send starts every request that is due and has a connection.
func (l *loop) send() {
	for l.sent < l.plan.requests && len(l.idle) > 0 {
		now := l.now()
		due := l.due(now)
		if due > now {
			return
		}
		c := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		l.sent++
		l.tallies.late.add(now - due)
		c.busy, c.dueNs, c.sum = true, due, c.wire.next(l.number)
		l.number += uint64(l.plan.payloads)
		c.unsent, c.answer = c.wire.bytes, c.answer[:0]
		l.write(c)
	}
}

// wait blocks until something can be read or written, or the next request is due, and handles it.
func (l *loop) wait() error {
	timeout := int64(100 * time.Millisecond)
	if l.sent < l.plan.requests && len(l.idle) > 0 {
		now := l.now()
		timeout = max(l.due(now)-now, 0)
		if l.plan.rate > 0 {
			timeout = max(timeout, slackNs)
		}
	}
	var ready [256]syscall.EpollEvent
	spec := syscall.NsecToTimespec(timeout)
	// Raw: there is no other goroutine that the runtime could run meanwhile, and telling it costs more than the call.
	count, _, number := syscall.RawSyscall6(epollPwait2, uintptr(l.epoll), uintptr(unsafe.Pointer(&ready[0])),
		uintptr(len(ready)), uintptr(unsafe.Pointer(&spec)), 0, 0)
	if number == syscall.EINTR {
		return nil
	}
	if number != 0 {
		return fmt.Errorf("epoll_pwait2 (Linux 5.11 or newer): %w", number)
	}
	for _, event := range ready[:count] {
		c := l.conns[event.Fd]
		if c == nil {
			continue
		}
		if event.Events&syscall.EPOLLOUT != 0 && len(c.unsent) > 0 {
			l.write(c)
		}
		if event.Events&^uint32(syscall.EPOLLOUT) != 0 {
			l.read(c)
		}
	}
	return nil
}

func (l *loop) write(c *conn) {
	for len(c.unsent) > 0 {
		count, err := syscall.Write(c.fd, c.unsent)
		if err == syscall.EAGAIN {
			return
		}
		if err != nil {
			l.lost(c)
			return
		}
		c.unsent = c.unsent[count:]
	}
}

func (l *loop) read(c *conn) {
	for {
		count, err := syscall.Read(c.fd, l.scratch)
		if err == syscall.EAGAIN {
			return
		}
		if err != nil || count == 0 {
			l.lost(c)
			return
		}
		data := l.scratch[:count]
		if len(c.answer) > 0 {
			c.answer = append(c.answer, data...)
			data = c.answer
		}
		got, complete, err := parse(data)
		switch {
		case err != nil || len(data) > answerBytesMax || !c.busy:
			l.finish(c, "an answer that is no HTTP/1.1")
			l.reconnect(c)
			return
		case !complete && len(c.answer) == 0:
			c.answer = append(c.answer, data...)
		case complete:
			l.finish(c, l.verdict(got))
			if got.closes {
				l.reconnect(c)
				return
			}
			l.idle = append(l.idle, c)
		}
		if count < len(l.scratch) {
			return // all that was there; what comes later is another edge
		}
	}
}

// verdict names what is wrong with an answer; empty: nothing.
func (l *loop) verdict(got answer) string {
	switch {
	case got.status != 200:
		return fmt.Sprintf("status %d", got.status)
	case got.accepted != l.plan.payloads && (l.plan.ids || got.accepted >= 0):
		return fmt.Sprintf("accepted %d of %d", got.accepted, l.plan.payloads)
	default:
		return ""
	}
}

func (l *loop) finish(c *conn, wrong string) {
	if !c.busy {
		return
	}
	c.busy, c.unsent = false, nil
	c.answer = c.answer[:0]
	l.done++
	l.tallies.latency.add(l.now() - c.dueNs)
	if wrong != "" {
		l.tallies.errors[wrong]++
		return
	}
	l.tallies.requests++
	l.tallies.payloads += l.plan.payloads
	l.tallies.sum += c.sum
}

// lost handles a connection that the server has ended: a request on it has no answer.
func (l *loop) lost(c *conn) {
	idle := !c.busy
	l.finish(c, "connection lost")
	if idle {
		for at, other := range l.idle {
			if other == c {
				l.idle = append(l.idle[:at], l.idle[at+1:]...)
				break
			}
		}
	}
	l.reconnect(c)
}

func (l *loop) reconnect(c *conn) {
	delete(l.conns, int32(c.fd))
	_ = syscall.Close(c.fd) // nothing is owed on it
	if err := l.connect(c); err != nil {
		l.tallies.errors["connect: "+err.Error()]++
		return
	}
	l.idle = append(l.idle, c)
}

func (l *loop) connect(c *conn) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	target := &syscall.SockaddrInet4{Port: int(l.plan.address.Port()), Addr: l.plan.address.Addr().As4()}
	if err := syscall.Connect(fd, target); err != nil {
		_ = syscall.Close(fd)
		return err
	}
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return err
	}
	c.fd = fd
	l.conns[int32(fd)] = c
	return syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)})
}
