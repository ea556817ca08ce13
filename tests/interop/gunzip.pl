# gunzip.pl LAYER...: prints the SHA-256 of what each decodes to. Three readers of Perl must agree.
use strict;
use warnings;
use Compress::Zlib ();
use Digest::SHA qw(sha256_hex);
use IO::Uncompress::Gunzip qw(gunzip $GunzipError);

for my $layer (@ARGV) {
    my ($all, $first);
    gunzip($layer => \$all, MultiStream => 1) or die "$layer: $GunzipError";
    # The first member alone has the whole tar.
    gunzip($layer => \$first, MultiStream => 0) or die "$layer: $GunzipError";
    die "$layer: the first member differs" if $all ne $first;
    open my $file, '<:raw', $layer or die "$layer: $!";
    my $bytes = do { local $/; <$file> };
    my $memory = Compress::Zlib::memGunzip($bytes);
    die "$layer: memGunzip differs" if !defined $memory || $memory ne $all;
    print sha256_hex($all), "\n";
}
