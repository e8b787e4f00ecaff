package main

import "time"

// sizes say how long things take.
type sizes struct {
	rounds     int
	bulk       []int // connections
	roundTrips []int
	idle       []int // connections, rising

	warm     time.Duration // before each of the following
	bulkFor  time.Duration // each way
	rtFor    time.Duration
	connFor  time.Duration
	dialling int           // connections at a time
	moved    int64         // bytes each way on an idle connection
	settle   time.Duration // until memory is read
	given    time.Duration // after closing all, until memory is read
}

// full is what `make bench` runs, in less than 15 minutes with six peers.
var full = sizes{
	rounds: 5, bulk: []int{1, 8, 64}, roundTrips: []int{1, 64, 512}, idle: []int{1000, 9500},
	warm: 200 * time.Millisecond, bulkFor: 600 * time.Millisecond, rtFor: time.Second, connFor: 1200 * time.Millisecond, dialling: 4,
	moved: 256 << 10, settle: 5 * time.Second, given: time.Minute,
}

var short = sizes{
	rounds: 2, bulk: []int{1, 8, 64}, roundTrips: []int{1, 64, 512}, idle: []int{1000},
	warm: 100 * time.Millisecond, bulkFor: 300 * time.Millisecond, rtFor: 500 * time.Millisecond, connFor: 600 * time.Millisecond, dialling: 4,
	moved: 256 << 10, settle: 3 * time.Second, given: 15 * time.Second,
}
