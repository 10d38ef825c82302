# What a Perl log analyser holds. Arguments: file of prose, size in MiB.
use strict;
use warnings;
my ($prose, $size) = @ARGV;
srand(99);
open my $in, '<', $prose or die "$prose: $!";
chomp(my @lines = <$in>);
close $in;
splice @lines, 40000 if @lines > 40000;
my %seen;
my @words = grep { /^[a-z]{4,}$/ && !$seen{$_}++ } map { split / / } @lines[0 .. $#lines / 2];

sub anonymous {
    open my $status, '<', '/proc/self/status' or die $!;
    while (<$status>) { return $1 << 10 if /RssAnon:\s+(\d+)/ }
    return 0;
}
my (%hosts, %pages, %sessions, @requests);
my $time = 1_690_000_000;
until (anonymous() >= $size << 20) {
    for (1 .. 2000) {
        $time += int rand 4;
        my $host = sprintf '10.%d.%d.%d', rand 4, rand 256, rand 256;
        my $page = "/$words[rand @words]/$words[rand 300]";
        my $request = { time => $time, host => $host, page => $page, status => (200, 200, 200, 404, 500)[rand 5],
            bytes => int(rand 40000), agent => ('Firefox', 'Chrome', 'curl')[rand 3], took => sprintf '%.3f', rand 2 };
        $request->{referrer} = "https://example.org$page?q=$words[rand @words]" if rand() < 0.4;
        push @requests, $request;
        $hosts{$host}{hits}++;
        push @{ $hosts{$host}{pages} }, $page;
        $pages{$page}{bytes} += $request->{bytes};
        $pages{$page}{title} //= $lines[rand @lines];
        $sessions{ sprintf '%08x', rand 2**32 } = [ $host, $time,
            { cart => [ map { int rand 9999 } 0 .. rand 4 ], note => $lines[rand @lines] } ];
    }
    splice @requests, rand @requests, 100;
    delete @sessions{ (keys %sessions)[ 0 .. 50 ] };
}
$| = 1;
print "READY\n";
<STDIN>;
