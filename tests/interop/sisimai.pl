# Reads the paths of bounces, one a line, with Debian's Sisimai, and prints what it makes of each: a JSON list, one a line.
use strict;
use warnings;
use JSON;
use Sisimai;

$| = 1;
while (my $path = <STDIN>) {
    chomp $path;
    my $found = Sisimai->make($path) || [];
    my @told = map { {
        recipient => $_->recipient->address, status => $_->deliverystatus, reason => $_->reason,
        action => $_->action, diagnostic => $_->diagnosticcode, addresser => $_->addresser->address,
        messageid => $_->messageid, subject => $_->subject,
    } } @$found;
    print JSON->new->ascii->canonical->encode(\@told), "\n";
}
