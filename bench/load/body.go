package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// telemetry is a payload as devices send them: nested, 25 fields. `@` marks sixteen hex digits that differ in each
// payload, `#` a reading that does. The note fills up to the size that was asked for.
const telemetry = `{"event":"sample","id":"@@@@@@@@@@@@@@@@","device":{"serial":"SN-0042-7731","model":"TX-9","firmware":"4.18.2",` +
	`"location":{"site":"plant-7","line":3,"lat":48.137154,"lon":11.576124}},"time":{"at":"2026-11-26T12:00:00.123Z",` +
	`"uptime_s":918273,"synced":true},"readings":{"temperature_c":####,"humidity_pct":41.75,"pressure_hpa":1013.25,` +
	`"vibration":{"x":0.0123,"y":-0.0045,"z":9.8067}},"power":{"volts":11.98,"amps":0.412,"source":"mains"},` +
	`"network":{"rssi_dbm":-61,"carrier":"wired"},"tags":["a","b","prod"],"note":"%s"}`

// small is the same kind in 200 bytes: 25 fields do not fit.
const small = `{"event":"sample","id":"@@@@@@@@@@@@@@@@","device":{"serial":"SN-0042-7731","line":3},` +
	`"readings":{"temperature_c":####,"humidity_pct":41.75},"synced":true,"note":"%s"}`

const filler = "belt 3 ran warm after the shift; motor 12 was greased and its bearing is due next week. "

// payloadOf is the template of that many bytes.
func payloadOf(size int) (string, error) {
	for _, kind := range []string{telemetry, small} {
		if room := size - len(kind) + len("%s"); room >= 0 {
			note := strings.Repeat(filler, room/len(filler)+1)[:room]
			return strings.Replace(kind, "%s", note, 1), nil
		}
	}
	return "", fmt.Errorf("a payload of %d bytes: at least %d", size, len(small))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fingerprint is the sink's, over one payload.
func fingerprint(body []byte) uint64 {
	x := uint64(crc32.Checksum(body, castagnoli)) | uint64(len(body))<<32
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// wire is one connection's request, written once and then only patched: no copy and no allocation a request.
type wire struct {
	bytes    []byte
	payloads [][]byte // inside bytes
	marks    [][]byte // the sixteen digits of each
	readings [][]byte // the four of each
}

func newWire(p plan) (*wire, error) {
	payload, err := payloadOf(p.bytes)
	if err != nil {
		return nil, err
	}
	opening, closing := `{"version":"1","token":"`+p.token+`","data":[`, `]}`
	length := len(opening) + p.payloads*(len(payload)+1) - 1 + len(closing)
	var built bytes.Buffer
	fmt.Fprintf(&built, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", p.path, p.address, length, opening)
	starts := make([]int, p.payloads)
	for i := range starts {
		if i > 0 {
			built.WriteByte(',')
		}
		starts[i] = built.Len()
		built.WriteString(payload)
	}
	built.WriteString(closing)
	made := &wire{bytes: built.Bytes()}
	mark, reading := strings.IndexByte(payload, '@'), strings.IndexByte(payload, '#')
	for _, start := range starts {
		body := made.bytes[start : start+len(payload)]
		made.payloads = append(made.payloads, body)
		made.marks = append(made.marks, body[mark:mark+16])
		made.readings = append(made.readings, body[reading:reading+4])
	}
	return made, nil
}

const hexDigits = "0123456789abcdef"

// next makes every payload a new one, from `number` on, and returns the sum of their fingerprints.
func (w *wire) next(number uint64) uint64 {
	var sum uint64
	for i, mark := range w.marks {
		value := number + uint64(i)
		for at := 15; at >= 0; at-- {
			mark[at] = hexDigits[value&15]
			value >>= 4
		}
		strconv.AppendUint(w.readings[i][:0:1], 1+(number+uint64(i))%9, 10)
		copy(w.readings[i][1:], ".25")
		sum += fingerprint(w.payloads[i])
	}
	return sum
}
